// Turns the overview into elements. Pure: it asks nobody and keeps nothing.

import { digest, h, outside, time } from "./dom.js";

export function content(overview) {
  const { endpoints, models, problems } = overview;
  return [
    ...problems.map(problem),
    models.length || endpoints.length ? totals(overview) : null,
    section("Endpoints", endpoints.map(endpoint), "endpoints", emptyEndpoints(problems)),
    section("Models", models.map(model), "models", emptyModels(problems)),
    overview.truncated && h("p", { class: "quiet" }, `At most ${overview.limit} models and endpoints are shown.`),
  ].filter(Boolean);
}

function section(title, cards, name, empty) {
  const id = `title-${name}`;
  const body = cards.length ? h("div", { class: name }, cards) : empty;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), body);
}

function problem({ source, conn_id: connection, message }) {
  return h("p", { class: "notice", role: "alert" }, h("strong", {}, `${source} (${connection}) is not shown. `), message);
}

// ---- nothing to show: what to do next ----

function empty(...text) {
  return h("p", { class: "card empty" }, ...text);
}

function emptyModels(problems) {
  return problems.some(({ kind }) => kind === "models")
    ? empty("Models appear here as soon as the registry answers.")
    : empty("No model is registered yet. Run a DAG with a ", h("code", {}, "RegisterModelOperator"), " task.");
}

function emptyEndpoints(problems) {
  return problems.some(({ kind }) => kind === "endpoints")
    ? empty("Endpoints appear here as soon as their platform answers.")
    : empty("Nothing is deployed yet. Run a DAG with a ", h("code", {}, "DeployModelOperator"), " task.");
}

// ---- totals ----

function totals({ endpoints, models }) {
  const champions = models.filter((each) => each.versions.some(({ aliases }) => aliases.includes("champion")));
  const shifting = endpoints.filter((each) => each.revisions.filter(({ traffic }) => traffic > 0).length > 1);
  const drifted = models.filter(({ drift }) => drift?.verdict === "fail");
  return h(
    "ul",
    { class: "totals" },
    total(models.length, "model", `${champions.length} with a champion`),
    total(endpoints.length, "endpoint", `${shifting.length} with split traffic`),
    total(drifted.length, "model with drift", drifted.map(({ name }) => name).join(", ") || "none", "models with drift"),
  );
}

function total(number, one, detail, many = `${one}s`) {
  const label = number === 1 ? one : many;
  return h("li", { class: "card" }, h("b", {}, number), h("span", {}, label), h("small", { class: "quiet" }, detail));
}

// ---- endpoints ----

function endpoint(card) {
  return h(
    "article",
    { class: "card" },
    h("header", {}, h("h3", {}, card.endpoint), h("span", { class: "badge" }, card.target)),
    card.url && h("p", { class: "quiet address" }, h("code", {}, card.url)),
    traffic(card.revisions),
    h("ul", { class: "revisions" }, card.revisions.map((each, index) => revision(each, index, card.previous))),
  );
}

function percent(value) {
  return `${Number(value.toFixed(1))} %`;
}

function traffic(revisions) {
  const words = revisions.filter((each) => each.traffic > 0).map((each) => `${each.revision} ${percent(each.traffic)}`);
  const bar = h("div", { class: "traffic", role: "img", "aria-label": `Traffic: ${words.join(", ") || "none"}` });
  for (const [index, each] of revisions.entries()) {
    if (each.traffic > 0) {
      const part = h("span", { class: `c${index % 6}`, title: `${each.revision}: ${percent(each.traffic)}` });
      part.style.width = `${each.traffic}%`;
      bar.append(part);
    }
  }
  return bar;
}

function revision(each, index, previous) {
  const what = each.model ? `${each.model} v${each.version}` : "";
  const back = each.revision === previous && h("span", { class: "badge", title: "A rollback goes here" }, "previous");
  return h(
    "li",
    {},
    h("i", { class: `swatch ${each.traffic > 0 ? `c${index % 6}` : "none"}` }),
    h("span", { class: "name" }, h("b", {}, each.revision), " ", h("span", { class: "quiet" }, what)),
    h("span", { class: "states" }, back, badge(each.state)),
    h("span", { class: "percent" }, percent(each.traffic)),
    each.detail && h("p", { class: "detail" }, each.detail),
  );
}

const TONES = {
  pass: "good",
  ready: "good",
  fail: "bad",
  unproven: "bad",
  failed: "bad",
  inconclusive: "warn",
  creating: "warn",
  unknown: "warn",
};

function badge(word, label = word) {
  return h("span", { class: `badge ${TONES[word] ?? ""}` }, label);
}

// ---- models ----

function model(card) {
  const name = outside(card.url, card.name, "Open in MLflow");
  return h(
    "article",
    { class: "card" },
    h("header", {}, h("h3", {}, name), drift(card.drift)),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...["Version", "Gate", "Trained on", "Files"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, card.versions.map(version)),
    ),
    card.hidden > 0 && h("p", { class: "quiet more" }, `${card.hidden} more in MLflow`),
  );
}

function drift(found) {
  if (!found) {
    return h("p", { class: "drift quiet" }, "Drift: not looked at yet");
  }
  const rows = found.rows && `${Number(found.rows).toLocaleString("en")} rows`;
  return h(
    "p",
    { class: "drift" },
    badge(found.verdict, `Drift: ${found.verdict}`),
    found.columns.length > 0 && h("span", { class: "columns" }, found.columns.map((each) => h("code", {}, each))),
    h("span", { class: "quiet" }, ...join([`version ${found.version}`, rows, found.at && time(found.at)])),
  );
}

function join(parts) {
  return parts.filter(Boolean).flatMap((part, index) => (index ? [" · ", part] : [part]));
}

function version(each) {
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      outside(each.url, each.version, "Open in MLflow"),
      each.aliases.flatMap((alias) => [" ", h("span", { class: `badge alias ${alias}` }, alias)]),
      each.dag_run && h("small", { class: "quiet run", title: "The DAG run that registered it" }, each.dag_run),
    ),
    cell("Gate", each.gate ? gate(each.gate) : h("span", { class: "quiet" }, "not evaluated")),
    cell("Trained on", trainedOn(each)),
    cell("Files", each.digest ? digest(each.digest) : h("span", { class: "quiet" }, "not recorded")),
  );
}

function cell(label, ...children) {
  return h("td", { "data-label": label }, h("div", {}, children.flat(2)));
}

function trainedOn({ data, checks }) {
  const digests = data.length ? data.map(digest) : h("span", { class: "quiet" }, "not recorded");
  return [digests, checks && badge(checks, `checks: ${checks}`)];
}

function gate({ verdict, values, against, why }) {
  return [
    badge(verdict),
    h("span", { class: "quiet" }, against ? `against version ${against}` : "no champion to compare with"),
    values.length > 0 && h("dl", { class: "values" }, values.map(value)),
    why && h("p", { class: "why" }, why),
  ];
}

function value({ rule, verdict, observed, required }) {
  const asks = required && h("span", { class: "quiet" }, ` (${required})`);
  return h("div", { class: TONES[verdict] }, h("dt", {}, rule), " ", h("dd", {}, observed, asks));
}
