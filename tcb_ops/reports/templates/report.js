(() => {
  const find = document.getElementById("find");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const merchants = all("[data-codes]"), causes = all("tr[data-code]"), lines = all(".matrix tbody tr"), changes = all(".changes tbody tr:not(.title)");
  const searched = new Map();
  const textOf = (part, selector) => {
    if (!searched.has(part)) searched.set(part, all(selector, part).map(cell => cell.textContent).join(" ").toLowerCase());
    return searched.get(part);
  };
  const isShown = part => part.matches("tr[data-code], [data-codes], .matrix tbody tr, .changes tbody tr:not(.title)") && !part.hidden;
  find.parentElement.hidden = false;
  find.addEventListener("input", () => {
    const query = find.value.trim().toLowerCase();
    const codes = new Set(), names = new Set();
    for (const merchant of merchants) {
      const isNamed = merchant.dataset.name.toLowerCase().includes(query);
      if (isNamed) for (const code of merchant.dataset.codes.split("|")) codes.add(code);
      const isFound = isNamed || merchant.dataset.codes.toLowerCase().includes(query) || textOf(merchant, "td:not(.n)").includes(query);
      if (isFound) names.add(merchant.dataset.name);
      merchant.hidden = !isFound;
    }
    for (const cause of causes) cause.hidden = !codes.has(cause.dataset.code) && !textOf(cause, ".cause, .do, .names").includes(query);
    for (const line of lines) line.hidden = query !== "" && !names.has(line.dataset.name);
    for (const change of changes) change.hidden = !textOf(change, "td").includes(query);
    for (const sums of all(".matrix tfoot")) sums.hidden = query !== "";
    for (const fold of all(".others")) fold.open = query !== "";
    for (const part of all(".changes tbody, [data-search] .next, .others, [data-search]")) part.hidden = query !== "" && !all("*", part).some(isShown);
    const counts = {causes: causes.filter(isShown).length, merchants: merchants.filter(isShown).length};
    find.nextElementSibling.textContent = query && find.dataset.counts.replace(/{(causes|merchants)}/g, (_, name) => counts[name]);
  });
  for (const link of all(".files a")) link.addEventListener("click", async event => {
    for (const {data} of document.childNodes) {  // a page with data has files in comments at its end
      const [, name, packed] = /^ tcb-ops (.+?)(\.gz)?\n/.exec(data) ?? [];
      if (name !== link.getAttribute("href")) continue;
      event.preventDefault();
      const bytes = new Blob([Uint8Array.from(atob(data.slice(data.indexOf("\n"))), letter => letter.charCodeAt(0))]).stream();
      const body = await new Response(packed ? bytes.pipeThrough(new DecompressionStream("gzip")) : bytes).blob();
      const saved = document.createElement("a");
      [saved.href, saved.download] = [URL.createObjectURL(body), name];
      saved.click();
    }
  });
  for (const command of all("kbd")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.textContent = find.dataset.copy;
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(command.textContent); } catch {
        const range = document.createRange();
        range.selectNodeContents(command);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = find.dataset.copied;
    });
    command.after(" ", button);
  }
})();
