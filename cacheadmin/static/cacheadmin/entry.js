// The entry page: copies the key.

for (const button of document.querySelectorAll("[data-cacheadmin-copy]")) {
  const text = button.parentElement.querySelector("[data-cacheadmin-copied]");
  if (!navigator.clipboard || !text) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    button.focus();
  });
}
