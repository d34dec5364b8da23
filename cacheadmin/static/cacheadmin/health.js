// Health: copies a fix to the clipboard.

if (navigator.clipboard) {
  document.querySelectorAll("[data-cacheadmin-copy]").forEach((button) => {
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = button.dataset.cacheadminCopy;
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  });
}
