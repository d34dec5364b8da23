// On every page of the console: where not all tabs fit the current one is in view, and `/` goes to the find box, from
// anywhere but a field. Pages work without this file.

const tab = document.querySelector(".cacheadmin-tabs [aria-current]");
tab?.scrollIntoView({ block: "nearest", inline: "center" });

const find = document.querySelector("[data-cacheadmin-find]");

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !find) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  event.preventDefault();
  find.focus();
  find.select();
});
