// One room: its messages, who is here, who is writing, and a connection that comes back by itself.
import { avatar, day, linked, make, script, time } from "./element.js";

const $ = id => document.getElementById(id);
const messages = $("messages"), scroller = $("scroller"), text = $("text"), status = $("status"), form = $("composer");
const GROUPED = 5 * 60_000; // milliseconds between two messages of one person that stand together
const title = document.title;

// ---- The connection

const FIRST_PAUSE = 500, LONGEST_PAUSE = 3_000; // milliseconds
const ANSWER = 10_000; // until a message that nobody confirms is taken for the sign of a dead connection

let socket = null, attempt = 0, retry = 0, retryAt = 0, ticking = 0, newest = 0, oldest = Infinity, version = 0, unseen = 0, restarting = false, stuck = true;

function connect() {
  clearTimeout(retry);
  clearInterval(ticking);
  if (socket) socket.onclose = socket.onmessage = null;
  socket?.close();
  state("connecting", "Connecting…");
  socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws/rooms/${script.slug}/?after=${newest}`);
  socket.onmessage = event => {
    const news = JSON.parse(event.data);
    receive[news.type]?.(news);
  };
  socket.onclose = closed;
}

function closed({ code }) {
  version = 0;
  if (code === 4401) return location.assign("/sign-in/");
  if (code === 4404) return location.assign("/");
  if (code === 4400) return state("lost", "Please reload the page");
  // All who were cut off by the same restart must not come back in the same moment.
  const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** attempt++) * (0.5 + Math.random() / 2);
  restarting ||= code === 1012;
  const reason = !navigator.onLine ? "You are offline" : restarting ? "Server restarts" : "Connection lost";
  retryAt = Date.now() + pause;
  retry = setTimeout(connect, pause);
  const tick = () => state("waiting", `${reason} · again in ${Math.max(1, Math.round((retryAt - Date.now()) / 1000))} s`);
  tick();
  ticking = setInterval(tick, 1000);
}

function state(name, words) {
  status.dataset.state = name;
  status.textContent = words;
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN && status.dataset.state === "open") socket.send(JSON.stringify(message));
}

status.onclick = () => status.dataset.state !== "open" && connect();
addEventListener("online", connect);
// Browsers slow the timers of hidden pages down.
document.addEventListener("visibilitychange", () => !document.hidden && status.dataset.state === "waiting" && connect());

const receive = {
  welcome(news) {
    const following = !newest || atEnd();
    attempt = 0;
    restarting = false;
    state("open", "Connected");
    // More has been said meanwhile than comes at a time: begin anew instead of leaving a gap.
    if (news.more && news.after) messages.querySelectorAll("[data-id]").forEach(item => item.remove());
    if (!news.after || news.more) $("older").hidden = !news.more;
    news.messages.forEach(show);
    for (const [key, { said }] of waiting) send({ type: "say", key, text: said });
    empty();
    if (following) toEnd();
  },
  older(news) {
    const height = scroller.scrollHeight;
    news.messages.forEach(show);
    $("older").hidden = !news.more;
    scroller.scrollTop += scroller.scrollHeight - height;
  },
  message({ message }) {
    const following = atEnd() || message.author === script.me.id;
    show(message);
    typists.delete(message.author);
    typing();
    notice(following, message);
  },
  taken({ key }) {
    confirmed(key);
    empty();
  },
  whisper({ text: words }) {
    const following = atEnd();
    messages.append(entry({ name: "Robot", robot: true, text: words, at: Date.now(), whisper: true }));
    arrange(messages.lastElementChild);
    empty();
    notice(following);
  },
  typing({ id, name }) {
    clearTimeout(typists.get(id)?.timer);
    typists.set(id, { name, timer: setTimeout(() => { typists.delete(id); typing(); }, 4000) });
    typing();
  },
  people(news) {
    if (news.version <= version) return;
    version = news.version;
    $("headcount").textContent = news.people.length;
    $("people").querySelector("ul").replaceChildren(...news.people.map(({ id, name }) =>
      make("li", {}, avatar(name), make("span", { textContent: name }), id === script.me.id ? make("small", { textContent: "you" }) : null)));
  },
};

// ---- Messages

function entry(message) {
  const mine = message.author === script.me.id;
  const body = make("div", { className: "bubble" });
  if (message.picture) {
    const picture = make("img", { src: message.picture, alt: `Picture from ${message.name}`, loading: "lazy" });
    picture.onload = () => stuck && toEnd();
    picture.onerror = () => picture.parentElement.replaceWith(make("p", { textContent: "This cannot be shown as a picture" }));
    body.append(make("a", { href: message.picture, target: "_blank", rel: "noopener" }, picture));
    body.classList.add("picture");
  }
  body.append(...linked(message.text || ""));
  const item = make("li", {},
    make("span", { className: "day", textContent: day(message.at) }),
    avatar(message.name, message.robot),
    make("div", { className: "by" }, make("strong", { textContent: message.name }), time(message.at),
      message.whisper ? make("small", { textContent: "only you see this" }) : null),
    body);
  item.classList.toggle("mine", mine);
  item.classList.toggle("robot", Boolean(message.robot));
  item.classList.toggle("whisper", Boolean(message.whisper));
  item.message = message;
  return item;
}

function show(message) {
  newest = Math.max(newest, message.id);
  oldest = Math.min(oldest, message.id);
  if (message.author === script.me.id) confirmed(message.key);
  if (messages.querySelector(`[data-id="${message.id}"]`)) return;
  const item = entry(message);
  item.dataset.id = message.id;
  // By number, as servers may tell them in another order than they were stored; what is not stored yet comes last.
  let before = messages.lastElementChild;
  while (before && (before.message.id ?? (before.message.whisper ? 0 : Infinity)) > message.id) before = before.previousElementSibling;
  before ? before.after(item) : messages.prepend(item);
  arrange(item);
  if (item.nextElementSibling) arrange(item.nextElementSibling);
  empty();
}

// Messages of one person stand together, and a day begins with its name.
function arrange(item) {
  const before = item.previousElementSibling?.message, { message } = item;
  const sameDay = before && day(before.at) === day(message.at);
  item.querySelector(".day").hidden = Boolean(sameDay);
  item.classList.toggle("follows", Boolean(sameDay && before.name === message.name && !message.whisper === !before.whisper
    && message.at - before.at < GROUPED));
  messages.querySelectorAll(".last").forEach(other => other.classList.remove("last"));
  messages.lastElementChild.classList.add("last");
}

const empty = () => { $("empty").hidden = messages.children.length > 0; };
const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 120;

function toEnd() {
  scroller.scrollTop = scroller.scrollHeight;
  $("newest").hidden = true;
}

function notice(following, message) {
  if (following) toEnd();
  else $("newest").hidden = false;
  if (message && document.hidden && message.author !== script.me.id) document.title = `(${++unseen}) ${title}`;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.title = title, unseen = 0;
});
scroller.addEventListener("scroll", () => {
  stuck = atEnd();
  if (stuck) $("newest").hidden = true;
});
// A growing draft, or the keyboard of a phone, must not cover what was said last.
new ResizeObserver(() => stuck && toEnd()).observe(scroller);
$("newest").onclick = toEnd;
$("older").onclick = () => send({ type: "older", before: oldest });

// ---- Saying: what is typed waits here until the server has confirmed it, over breaks and reloads

const store = `waiting ${script.me.id} ${script.slug}`;
const waiting = new Map();

// Browsers make UUIDs in secure contexts only.
const newKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;

function say(said, key = newKey()) {
  const item = entry({ author: script.me.id, name: script.me.name, text: said, at: Date.now() });
  item.classList.add("waiting");
  messages.append(item);
  arrange(item);
  waiting.set(key, { said, item, timer: setTimeout(() => status.dataset.state === "open" && waiting.has(key) && connect(), ANSWER) });
  keep();
  send({ type: "say", key, text: said });
  empty();
  toEnd();
}

function confirmed(key) {
  const found = waiting.get(key);
  if (!found) return;
  clearTimeout(found.timer);
  found.item.remove();
  waiting.delete(key);
  keep();
}

function keep() {
  sessionStorage.setItem(store, JSON.stringify([...waiting].map(([key, { said }]) => [key, said])));
}

form.onsubmit = event => {
  event.preventDefault();
  if (text.value.trim()) say(text.value.trim());
  text.value = "";
  told = 0;
  text.focus();
};

text.onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
};

// ---- Who is writing

const typists = new Map();
let told = 0;

text.oninput = () => {
  if (!text.value || text.value.startsWith("/") || Date.now() - told < 2000) return;
  told = Date.now();
  send({ type: "typing" });
};

function typing() {
  const names = [...typists.values()].map(({ name }) => name);
  const words = names.length > 3 ? "Several people are writing" : `${names.join(", ")} ${names.length > 1 ? "are" : "is"} writing`;
  $("typing").replaceChildren(...(names.length ? [make("span", { className: "dots" }, make("i"), make("i"), make("i")), words] : []));
}

// ---- Pictures

function upload(file, key = newKey()) {
  if (!file) return;
  const preview = URL.createObjectURL(file);
  const item = entry({ author: script.me.id, name: script.me.name, picture: preview, at: Date.now() });
  const progress = make("progress", { max: 1, value: 0 }), words = make("span", { textContent: "0 %" });
  progress.setAttribute("aria-label", `Sending ${file.name}`);
  const bar = make("div", { className: "progress" }, progress, words);
  item.classList.add("waiting");
  item.querySelector(".bubble").append(bar);
  messages.append(item);
  arrange(item);
  empty();
  toEnd();

  const fail = (reason, again = false) => {
    const button = make("button", { type: "button", textContent: again ? "Try again" : "Dismiss" });
    button.onclick = () => {
      item.remove();
      empty();
      // With the same key: it may have arrived although nobody could say so.
      if (again) upload(file, key);
    };
    item.classList.add("failed");
    bar.replaceChildren(make("span", { textContent: reason }), button);
    toEnd();
  };
  if (file.size > script.maxSize) return fail(`Pictures may have up to ${script.maxSize >> 20} MiB.`);

  const body = new FormData();
  body.append("key", key);
  body.append("picture", file);
  const request = new XMLHttpRequest();
  request.open("POST", form.dataset.upload);
  request.responseType = "json";
  request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
  request.upload.onprogress = ({ loaded, total }) => {
    progress.value = loaded / total;
    words.textContent = `${Math.round(100 * loaded / total)} %`;
  };
  request.onload = () => {
    if (request.status !== 201) return fail(request.response?.error ?? "The server did not take it.");
    item.remove();
    URL.revokeObjectURL(preview);
    show(request.response);
    toEnd();
  };
  request.onerror = () => fail("The connection broke.", true);
  request.send(body);
}

$("picture").onchange = ({ target }) => {
  upload(target.files[0]);
  target.value = "";
};
text.onpaste = ({ clipboardData }) => upload([...clipboardData.files][0]);
document.ondragover = event => event.preventDefault();
document.ondrop = event => {
  event.preventDefault();
  upload(event.dataTransfer.files[0]);
};

// ---- Drawers on narrow screens

for (const button of document.querySelectorAll("button[aria-controls]")) {
  button.onclick = event => {
    event.stopPropagation();
    const open = button.getAttribute("aria-expanded") !== "true";
    shut();
    button.setAttribute("aria-expanded", open);
    $(button.getAttribute("aria-controls")).classList.toggle("open", open);
  };
}

function shut() {
  document.querySelectorAll(".side.open").forEach(side => side.classList.remove("open"));
  document.querySelectorAll("button[aria-controls]").forEach(button => button.setAttribute("aria-expanded", false));
}

document.addEventListener("click", event => event.target.closest(".side") || shut());
document.addEventListener("keydown", event => event.key === "Escape" && shut());

for (const [key, said] of JSON.parse(sessionStorage.getItem(store) || "[]")) say(said, key);
connect();
