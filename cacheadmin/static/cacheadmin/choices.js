// Choices of a form that act at once, without its button.

document.querySelectorAll("[data-cacheadmin-choose]").forEach((select) => {
  select.addEventListener("change", () => select.form.requestSubmit());
});
