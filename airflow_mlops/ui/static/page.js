// Fetches the overview and shows it: on load, on the button, and every 30 s while the page can be seen.

import { content } from "./cards.js";
import { h, tick, time } from "./dom.js";

const EVERY = 30_000;
const KEY = "airflow_mlops.auto_refresh";

const [main, notice, updated, button, auto] = ["content", "notice", "updated", "refresh", "auto"].map((id) =>
  document.getElementById(id),
);
let shown = "";

const REFUSALS = {
  401: "You are signed out. Reload Airflow and sign in again.",
  403: "You may not see this page. It needs the right to read assets: ask an administrator.",
};

async function ask() {
  const answer = await fetch("api/overview", { headers: { Accept: "application/json" } });
  if (!answer.ok) {
    throw new Error(REFUSALS[answer.status] ?? `The API server answered ${answer.status}. Its log has the details.`);
  }
  return answer.json();
}

function show(overview) {
  const { as_of: asOf, ...rest } = overview;
  updated.replaceChildren("Updated ", time(asOf));
  const now = JSON.stringify(rest);
  if (now === shown) {
    return;
  }
  shown = now;
  const focused = document.activeElement?.getAttribute("href");
  main.replaceChildren(...content(overview));
  if (focused) {
    main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
}

function warn(error) {
  const unreachable = error instanceof TypeError;
  notice.textContent = unreachable ? "The API server did not answer. What is below may be out of date." : error.message;
  notice.hidden = false;
}

async function refresh() {
  if (button.disabled) {
    return;
  }
  button.disabled = true;
  main.setAttribute("aria-busy", "true");
  try {
    show(await ask());
    notice.hidden = true;
  } catch (error) {
    warn(error);
    if (!shown) {
      updated.replaceChildren("Not loaded");
    }
  } finally {
    button.disabled = false;
    main.setAttribute("aria-busy", "false");
  }
}

button.addEventListener("click", refresh);
auto.checked = localStorage.getItem(KEY) !== "off";
auto.addEventListener("change", () => localStorage.setItem(KEY, auto.checked ? "on" : "off"));
setInterval(() => auto.checked && !document.hidden && refresh(), EVERY);
setInterval(() => tick(document), 1_000);
document.addEventListener("visibilitychange", () => auto.checked && !document.hidden && shown && refresh());
main.append(h("p", { class: "quiet loading" }, "Asking MLflow and the endpoints…"));
refresh();
