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
    take: ({ html }) => {
      const fresh = replaceParts(html);
      const data = sent(fresh); // read before its element may move
      if (isMissingParts(fresh)) live.replaceChildren(...fresh.body.childNodes);
      draw(data);
    },
  });
}

/** Whether the page was loaded without something that is known now: nothing was cached, or Redis was away. */
function isMissingParts(fresh) {
  fresh.querySelector('[data-cacheadmin-part="standing"]')?.remove(); // stands above, and was renewed
  return [...fresh.querySelectorAll("[data-cacheadmin-part]")].some(
    (part) => !live.querySelector(`[data-cacheadmin-part="${part.dataset.cacheadminPart}"]`),
  );
}
