// Elements made of what people wrote, which only ever becomes text and never markup.

export const script = JSON.parse(document.getElementById("script").textContent);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(child => child !== null));
  return element;
}

export function avatar(name, robot = false) {
  if (robot) return make("img", { className: "avatar", src: new URL("robot.svg", import.meta.url).href, alt: "" });
  const words = name.trim().split(/[\s._-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [...words[0]][0] + [...words.at(-1)][0] : [...name.trim()].slice(0, 2).join("");
  const disc = make("span", { className: "avatar", textContent: letters.toUpperCase() });
  disc.setAttribute("aria-hidden", "true");
  disc.style.setProperty("--hue", hue(name));
  return disc;
}

// The same for everybody, and far enough apart: steps of 29 degrees around the circle.
function hue(name) {
  let sum = 7;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return (sum * 29) % 360;
}

export function time(at) {
  const moment = new Date(at);
  return make("time", {
    dateTime: moment.toISOString(),
    title: moment.toLocaleString(),
    textContent: moment.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" }),
  });
}

export function day(at) {
  const midnight = moment => new Date(moment).setHours(0, 0, 0, 0);
  const ago = Math.round((midnight(Date.now()) - midnight(at)) / 86_400_000);
  if (ago < 2) return ago < 1 ? "Today" : "Yesterday";
  return new Date(at).toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

// The text in pieces, of which those that are addresses of the web can be followed.
export function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,:;!?)])/u).map((piece, index) =>
    index % 2 ? make("a", { href: piece, textContent: piece, target: "_blank", rel: "noopener noreferrer" }) : piece);
}

for (const place of document.querySelectorAll("[data-avatar]")) place.replaceWith(avatar(place.dataset.avatar));
