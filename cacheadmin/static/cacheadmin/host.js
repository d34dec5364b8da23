// Fills "Cached data" on a site's own change page when it is opened. Without script its link leads to the same.

for (const details of document.querySelectorAll("[data-cacheadmin-panel]")) {
  const body = details.querySelector("[data-cacheadmin-body]");
  details.addEventListener("toggle", async () => {
    if (!details.open || details.dataset.isFilled) return;
    details.dataset.isFilled = "1";
    const dim = setTimeout(() => { body.dataset.isOld = ""; }, 1000);
    try {
      const answer = await fetch(`${details.dataset.cacheadminPanel}?format=json`, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString((await answer.json()).html, "text/html");
      body.replaceChildren(...page.body.childNodes);
    } catch {
      delete details.dataset.isFilled; // the link is still there; opening it again tries again
    } finally {
      clearTimeout(dim);
      delete body.dataset.isOld;
    }
  });
}
