// A run's page: asks each second how far it is, says the quarters aloud, and loads anew when it has ended.

import { poll } from "./poll.js";

const box = document.querySelector("[data-cacheadmin-run]");
const text = box?.querySelector("[data-cacheadmin-run-text]");
const results = box?.querySelector("[data-cacheadmin-run-results]");
const said = box?.querySelector("[data-cacheadmin-run-said]");
const progress = box?.querySelector("progress");
let quarter = 0;

function element(name, text, look = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = look;
  return made;
}

// Both lists are short. What nobody has changed stays, so that a selection in it does.
function list(name, rows, fill) {
  const part = document.querySelector(`[data-cacheadmin-run-${name}]`);
  const state = JSON.stringify(rows);
  if (!part || !rows || part.dataset.state === state) return;
  part.dataset.state = state;
  part.hidden = !rows.length;
  part.querySelector("ul").replaceChildren(...rows.map((row) => {
    const line = document.createElement("li");
    line.append(...fill(row));
    return line;
  }));
}

function take(answer) {
  if (answer.state !== "running") {
    location.reload();
    return;
  }
  text.textContent = answer.text;
  results.textContent = answer.results;
  list("steps", answer.steps, (step) => [element("code", step)]);
  list("failures", answer.failures, ([step, error]) => [element("code", step), " ", element("span", error, "cacheadmin-bad")]);
  if (!progress || !answer.total) return;
  progress.value = answer.done;
  const reached = Math.floor((4 * answer.done) / answer.total);
  if (reached > quarter) {
    quarter = reached;
    said.textContent = answer.text;
  }
}

if (box?.dataset.cacheadminRun) poll({ url: () => box.dataset.cacheadminRun, every: 1000, take });
