// The overview, and a cached function's page: charts, choices that act at once, figures that renew themselves.

import { draw, sent, start } from "./charts.js";
import "./choices.js";
import { poll, replaceParts } from "./poll.js";

start();

const live = document.querySelector("[data-cacheadmin-poll]");
if (live) {
  poll({
    url: () => live.dataset.cacheadminPoll + location.search,
    every: 10_000,
    button: document.querySelector("[data-cacheadmin-live]"),
    status: document.querySelector("[data-cacheadmin-late]"),
    take: ({ html }) => draw(sent(replaceParts(html))),
  });
}
