// The only place that makes elements. Everything from data becomes a text node or an attribute, never markup.

/** Make an element: h("p", {class: "quiet"}, "text", child, null). Null and false children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A link to another site that opens in a new tab. Without a web address it is plain text. */
export function outside(address, label, hint) {
  if (!/^https?:\/\//i.test(address)) {
    return h("span", {}, label);
  }
  const link = h("a", { href: address, target: "_blank", rel: "noopener noreferrer", title: hint }, label);
  link.addEventListener("click", openFromTop);
  return link;
}

// Airflow's frame may not open tabs itself, its page may: the click is repeated there.
function openFromTop(event) {
  if (window.parent === window) {
    return;
  }
  event.preventDefault();
  const twin = window.parent.document.createElement("a");
  twin.href = event.currentTarget.href;
  twin.target = "_blank";
  twin.rel = "noopener noreferrer";
  twin.click();
}

const UNITS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function ago(date, now) {
  const seconds = Math.round((date - now) / 1000);
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? UNITS.at(-1);
  return Math.abs(seconds) < 5 ? "just now" : relative.format(Math.trunc(seconds / size), unit);
}

/** A time as "2 hours ago", with the exact time as its tooltip. What is no time is shown as it is. */
export function time(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) {
    return h("span", {}, iso);
  }
  const exact = date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  return h("time", { datetime: date.toISOString(), title: exact }, ago(date, Date.now()));
}

/** Bring the words of every shown time up to date. */
export function tick(root) {
  for (const element of root.querySelectorAll("time")) {
    element.textContent = ago(new Date(element.dateTime), Date.now());
  }
}

/** The first characters of a digest, with the whole of it as the tooltip. */
export function digest(value) {
  const [kind, hex] = value.includes(":") ? value.split(/:(.*)/s) : ["", value];
  return h("code", { title: value }, kind ? `${kind}:${hex.slice(0, 10)}` : hex.slice(0, 10));
}
