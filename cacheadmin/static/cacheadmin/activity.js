// Activity: says how many lines are new, and shows them when asked. Nothing moves under the pointer.

import { poll } from "./poll.js";

const news = document.querySelector("[data-cacheadmin-news]");

if (news?.dataset.cacheadminNews) {
  const [text, link] = news.children;
  poll({
    url: () => {
      const query = new URLSearchParams(location.search);
      query.set("newest", news.dataset.cacheadminNewest);
      return `${news.dataset.cacheadminNews}?${query}`;
    },
    every: 10_000,
    take: (answer) => {
      if (text.textContent !== answer.text) text.textContent = answer.text;
      link.hidden = !answer.new;
      link.href = location.href;
    },
  });
}
