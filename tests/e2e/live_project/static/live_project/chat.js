const socket = new WebSocket(`ws://${location.host}/ws/chat/`);

socket.addEventListener("message", ({ data }) => {
  const line = document.createElement("li");
  line.textContent = data;
  document.getElementById("lines").append(line);
});

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(event.target.text.value);
  event.target.reset();
});
