// Three small charts over the last minutes: tokens/s, time to first token, and the queue.

import { make, count, seconds } from "./dom.js";

const W = 300;
const H = 58;

export function drawCharts(history) {
  const width = history.kept_slots;
  const tokens = history.tokens_per_s;
  draw("chart-tokens", {
    title: "Generated", now: tokens.length ? count(recent(tokens, 3)) : "0", unit: "tokens/s",
    most: `most ${count(top(tokens))}/s`, marks: area(tokens, width, top(tokens)), minutes: minutes(history),
  });
  const firsts = history.first_token_s;
  const last = firsts.findLast((value) => value !== null);
  draw("chart-first", {
    title: "Time to first token", now: last === undefined ? "–" : seconds(last), unit: last === undefined ? "" : "last",
    most: top(firsts) ? `longest ${seconds(top(firsts))}` : "", marks: bars(firsts, width, top(firsts)), minutes: minutes(history),
  });
  const { running, waiting } = history;
  const both = running.map((value, i) => value + waiting[i]);
  draw("chart-queue", {
    title: "Requests", now: `${count(running.at(-1) ?? 0)}`, unit: `running, ${count(waiting.at(-1) ?? 0)} waiting`,
    most: `most ${count(top(both))}`, minutes: minutes(history),
    marks: [...area(both, width, top(both), "second"), ...area(running, width, top(both))],
  });
}

const top = (values) => values.reduce((most, value) => Math.max(most, value ?? 0), 0);
const minutes = (history) => Math.round((history.kept_slots * history.slot_s) / 60);
const recent = (values, slots) => {
  const end = values.slice(-slots);
  return end.reduce((sum, value) => sum + value, 0) / end.length;
};

function draw(id, { title, now, unit, most, marks, minutes: span }) {
  const picture = shape("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(shape("line", { class: "floor", x1: 0, x2: W, y1: H, y2: H }), ...marks);
  const words = `${title}: ${now} ${unit}${most && `, ${most} in ${span} minutes`}`;
  const figure = document.getElementById(id);
  figure.setAttribute("aria-label", words);
  figure.replaceChildren(
    make("figcaption", { "aria-hidden": "true" }, title),
    make("p", { class: "now", "aria-hidden": "true" }, now, make("small", {}, unit)),
    picture,
    make("p", { class: "ends", "aria-hidden": "true" }, make("span", {}, `${span} min ago`), make("span", {}, most), make("span", {}, "now")),
  );
}

// Slots stand at the right: a server that has just started fills the chart from there.
const at = (index, length, width) => ((width - length + index + 0.5) / width) * W;
const height = (value, most) => H - (most ? (value / most) * (H - 3) : 0);

function area(values, width, most, kind = "area") {
  if (!most) return [];
  const points = values.map((value, i) => `${at(i, values.length, width).toFixed(1)},${height(value, most).toFixed(1)}`);
  const [left, right] = [at(0, values.length, width), at(values.length - 1, values.length, width)];
  const marks = [shape("polygon", { class: kind, points: `${left},${H} ${points.join(" ")} ${right},${H}` })];
  if (kind === "area") marks.push(shape("polyline", { class: "line", points: points.join(" ") }));
  return marks;
}

function bars(values, width, most) {
  return values.flatMap((value, i) => {
    if (value === null) return [];
    const x = at(i, values.length, width);
    return [shape("line", { class: "bar-mark", x1: x, x2: x, y1: H, y2: Math.min(H - 2, height(value, most)) })];
  });
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
