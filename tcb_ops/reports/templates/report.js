(() => {
  const find = document.getElementById("find");
  const parts = document.querySelectorAll(".next tbody tr, .matrix tbody tr, #detail ~ details, .others tbody tr");
  find.parentElement.hidden = false;
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let left = 0;
    for (const part of parts) {
      part.hidden = wanted !== "" && !part.textContent.toLowerCase().includes(wanted) && !part.matches(".others");
      left += part.hidden ? 0 : 1;
    }
    for (const others of document.querySelectorAll(".others")) others.open = wanted !== "";
    find.nextElementSibling.textContent = wanted === "" ? "" : String(left);
  });
  for (const command of document.querySelectorAll("kbd")) {
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
