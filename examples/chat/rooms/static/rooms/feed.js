// What happens in all rooms, by server-sent events: how many are where, what was said, and what is new to this page.
// The browser itself asks again when the stream breaks off.
import { avatar, make, script, time } from "./element.js";

const MOST = 30;
const list = document.getElementById("feed");
const live = document.getElementById("live");
const source = new EventSource("/feed/");

source.addEventListener("open", () => live?.setAttribute("data-state", "open"));
source.addEventListener("error", () => live?.setAttribute("data-state", "waiting"));

source.addEventListener("people", event => {
  const { slug, count } = JSON.parse(event.data);
  for (const place of document.querySelectorAll(`[data-room="${CSS.escape(slug)}"] .count`)) place.textContent = count || "";
});

source.addEventListener("message", event => {
  const entry = JSON.parse(event.data);
  if (list) show(entry);
  else if (!entry.past && entry.slug !== script.slug)
    document.querySelector(`nav [data-room="${CSS.escape(entry.slug)}"]`)?.classList.add("unread");
});

function show(entry) {
  if (list.querySelector(`[data-id="${entry.id}"]`)) return;
  const said = entry.text || "shows a picture";
  const item = make("li", {},
    make("a", { href: `/rooms/${entry.slug}/` },
      avatar(entry.name, entry.robot),
      make("span", {}, make("strong", { textContent: entry.name }), " in ", entry.room, " · ", time(entry.at)),
      make("span", { className: entry.text ? "said" : "said shown", textContent: said })));
  item.dataset.id = entry.id;
  item.classList.toggle("fresh", !entry.past);
  list.prepend(item);
  while (list.children.length > MOST) list.lastElementChild.remove();
}
