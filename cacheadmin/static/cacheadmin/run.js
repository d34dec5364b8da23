// A run's page: asks each second how far it is, says the quarters aloud, and loads anew when it has ended.

import { poll } from "./poll.js";

const box = document.querySelector("[data-cacheadmin-run]");
const text = box?.querySelector("[data-cacheadmin-run-text]");
const results = box?.querySelector("[data-cacheadmin-run-results]");
const said = box?.querySelector("[data-cacheadmin-run-said]");
const progress = box?.querySelector("progress");
let quarter = 0;

function take(answer) {
  if (answer.state !== "running") {
    location.reload();
    return;
  }
  text.textContent = answer.text;
  results.textContent = answer.results;
  if (!progress || !answer.total) return;
  progress.value = answer.done;
  const reached = Math.floor((4 * answer.done) / answer.total);
  if (reached > quarter) {
    quarter = reached;
    said.textContent = answer.text;
  }
}

if (box?.dataset.cacheadminRun) poll({ url: () => box.dataset.cacheadminRun, every: 1000, take });
