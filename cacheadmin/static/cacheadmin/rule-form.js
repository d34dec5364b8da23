// The rule form: rows of targets, names of fields as chips, completions of the chosen model, and the preview, which
// follows what is typed. The page does all of this without script too, with more clicks.

const form = document.querySelector("[data-cacheadmin-rule]");
const PAUSE_MS = 400;

function rowsOfTargets(table, changed) {
  const body = table.tBodies[0];
  const rows = () => [...body.querySelectorAll("[data-cacheadmin-target]")];
  const template = rows().at(-1).cloneNode(true);
  const dress = (row) => {
    const [kind, name, remove] = ["[name=targets-kind]", "[name=targets-name]", "[data-cacheadmin-remove]"].map((s) => row.querySelector(s));
    const follow = () => {
      name.hidden = kind.value === "tenant"; // everything has no name
      if (name.hidden) name.value = "";
      const lists = { tag: "cacheadmin-tags", group: "cacheadmin-groups", prefix: "cacheadmin-groups" };
      name.setAttribute("list", lists[kind.value] || "");
    };
    kind.addEventListener("change", follow);
    remove.hidden = false;
    remove.addEventListener("click", () => {
      const all = rows();
      const next = all[all.indexOf(row) + 1] || all[all.indexOf(row) - 1];
      if (row.nextElementSibling?.matches(".cacheadmin-target-errors")) row.nextElementSibling.remove();
      row.remove();
      (next?.querySelector("[name=targets-name]") || form.querySelector("[data-cacheadmin-add-target]")).focus();
      changed();
    });
    follow();
    return row;
  };
  table.dataset.isLive = "";
  const spare = [...body.querySelectorAll("[data-cacheadmin-spare]")];
  spare.slice(rows().length === spare.length ? 1 : 0).forEach((row) => row.remove());
  rows().forEach(dress);
  const add = form.querySelector("[data-cacheadmin-add-target]");
  add.hidden = false;
  add.addEventListener("click", () => {
    const row = dress(body.appendChild(template.cloneNode(true)));
    row.querySelector("[name=targets-name]").focus();
  });
}

function chips(box, changed) {
  const field = box.querySelector("input");
  const typed = document.createElement("input");
  const names = field.value.split(",").map((name) => name.trim()).filter(Boolean);
  const known = new Set(names);
  Object.assign(typed, { type: "text", placeholder: box.dataset.add, autocomplete: "off", spellcheck: false, id: field.id });
  typed.setAttribute("list", field.getAttribute("list"));
  field.removeAttribute("id");
  field.type = "hidden";
  box.dataset.isLive = "";
  const draw = () => {
    box.querySelectorAll(".cacheadmin-chip-name").forEach((chip) => chip.remove());
    for (const name of names) {
      const chip = document.createElement("span");
      const remove = document.createElement("button");
      chip.className = "cacheadmin-chip-name";
      if (!known.has(name)) chip.dataset.isNew = "";
      chip.append(name, remove);
      Object.assign(remove, { type: "button", textContent: "×", ariaLabel: box.dataset.remove.replace("{name}", name) });
      remove.addEventListener("click", () => { names.splice(names.indexOf(name), 1); typed.focus(); draw(); changed(); });
      box.insertBefore(chip, typed);
    }
    field.value = names.join(", ");
  };
  const take = () => {
    const come = typed.value.split(",").map((name) => name.trim()).filter((name) => name && !names.includes(name));
    typed.value = "";
    if (come.length) { names.push(...come); draw(); changed(); }
  };
  typed.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === ",") && typed.value.trim()) { event.preventDefault(); take(); }
    if (event.key === "Backspace" && !typed.value && names.length) { names.pop(); draw(); changed(); }
  });
  typed.addEventListener("change", take); // also when a completion is chosen and the field left
  typed.addEventListener("blur", take);
  box.append(typed);
  draw();
}

function completions(select) {
  select.addEventListener("change", async () => {
    const answer = await fetch(`${form.dataset.choicesUrl}?model=${encodeURIComponent(select.value)}`, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) return; // completions of another model are only a lesser help
    for (const [name, values] of Object.entries(await answer.json())) {
      const list = form.querySelector(`[data-cacheadmin-list=${name}]`);
      list?.replaceChildren(...values.map((value) => Object.assign(document.createElement("option"), { value })));
    }
  });
}

// One request at a time; what is typed meanwhile is asked for when it is answered.
function preview(place) {
  let timer = 0, busy = false, again = false, last = "";
  const ask = async () => {
    const data = new FormData(form);
    const now = new URLSearchParams(data).toString();
    if (busy || now === last) { again = busy; return; }
    [busy, again, last] = [true, false, now];
    const dim = setTimeout(() => { place.dataset.isOld = ""; }, 1000);
    try {
      const answer = await fetch(form.dataset.previewUrl, { method: "POST", body: data });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString((await answer.json()).html, "text/html");
      place.replaceChildren(...page.body.childNodes);
      delete place.dataset.isOld;
    } catch {
      place.dataset.isOld = ""; // what is shown belongs to an earlier wording; the button still works
    } finally {
      clearTimeout(dim);
      busy = false;
      if (again) ask();
    }
  };
  return () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE_MS); };
}

if (form) {
  const place = document.querySelector("[data-cacheadmin-preview]");
  const changed = place ? preview(place) : () => {};
  rowsOfTargets(form.querySelector("[data-cacheadmin-targets]"), changed);
  chips(form.querySelector("[data-cacheadmin-chips]"), changed);
  completions(form.querySelector("[name=model]"));
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  document.querySelector("[data-cacheadmin-preview-tenant]")?.addEventListener("change", changed);
}
