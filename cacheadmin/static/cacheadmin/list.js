// Tables with boxes: one box for all rows, and how many are selected.

const boxes = [...document.querySelectorAll('input[type="checkbox"]:is([name="chosen"], [name="_selected_action"])')];
const all = document.querySelector("[data-cacheadmin-all]");
const said = document.querySelector("[data-cacheadmin-selected]");

function show() {
  const chosen = boxes.filter((box) => box.checked).length;
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  }
  if (said) said.textContent = said.dataset.text.replace("{n}", chosen).replace("{total}", boxes.length);
}

if (all && boxes.length) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    show();
  });
}
for (const box of boxes) box.addEventListener("change", show);
if (boxes.length) show();
