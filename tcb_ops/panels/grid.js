// The front end of the grid: an ES module without dependencies, loaded by anywidget.
// All text is set as textContent; the HTML of causes and charts comes from Python, which escapes it.

const PAGE = 50; // merchants that are drawn at a time
const [APPID, NAME, ROWS, GOOD, BAD, TODO, CODES] = [0, 1, 2, 3, 4, 5, 6];

const compare = new Intl.Collator().compare; // localeCompare would make a collator for each comparison

function make(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const number = (value) => value.toLocaleString("en-US");

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page that is not served over HTTPS has no clipboard.
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function render({ model, el }) {
  const words = model.get("words");
  const merchants = new Map();
  let run = "";
  let running = false;
  let codes = [];
  let sort = { by: BAD, down: true };
  let chip = "all";
  let shown = PAGE;
  let asked = 0;
  let pages = [-1]; // the line before each page, the current one last
  let answer = null;
  let answered = true;
  let ahead = null; // the next page, read while this one is looked at: [request, answer]
  let aheadId = -1;
  let causes = null;
  let charts = null;

  // --- merchants -------------------------------------------------------------------------------------------------
  const search = make("input", { type: "search", placeholder: words.search, "aria-label": words.search, class: "op-search" });
  const chips = make("div", { class: "op-chips", role: "group", "aria-label": words.state });
  const headRow = make("tr");
  const body = make("tbody");
  const none = make("p", { class: "op-quiet", role: "status" });
  const more = make("button", { type: "button", class: "op-more", text: words.more, onclick: () => { shown += 100; draw(); } });
  const scroller = make("div", { class: "op-scroll op-merchants-scroll", tabindex: "0", role: "region", "aria-label": words.merchants },
    make("table", { class: "op-table op-by-merchant", "aria-label": words.merchants }, make("thead", {}, headRow), body), more);
  const HEADS = [["merchant", NAME], ["rows", ROWS], ["progress", null], ["good", GOOD], ["bad", BAD], ["todo", TODO], ["why", null]];
  const heads = HEADS.map(([word, column]) => {
    const cell = make("th", { scope: "col", class: column >= ROWS ? "op-num" : "" });
    if (column === null) cell.textContent = words[word];
    else cell.append(make("button", { type: "button", class: "op-sort", text: words[word], onclick: () => {
      sort = { by: column, down: sort.by === column ? !sort.down : column >= ROWS };
      draw();
    } }));
    headRow.append(cell);
    return [cell, column];
  });
  const FITS = { all: () => true, failed: (line) => line[BAD] > 0, open: (line) => line[TODO] > 0, done: (line) => !line[BAD] && !line[TODO] };
  const chipButtons = Object.keys(FITS).map((name) => {
    const button = make("button", { type: "button", class: "op-chip", onclick: () => { chip = name; shown = PAGE; draw(); } });
    chips.append(button);
    return [name, button];
  });
  search.addEventListener("input", () => { shown = PAGE; draw(); });

  function filterButton(label, appid, code, extra = {}) {
    const button = make("button", { type: "button", class: "op-link", ...extra });
    button.textContent = label;
    button.addEventListener("click", () => filter(appid, code, true));
    return button;
  }

  const drawnLines = new Map(); // appid -> [line, row]: a line that has not changed keeps its row, and its focus
  function lineOf(line) {
    const kept = drawnLines.get(line[APPID]);
    if (kept && kept[0] === line) return kept[1];
    const bar = make("span", { class: "op-bar", "aria-hidden": "true" });
    for (const [name, part] of [["g", line[GOOD]], ["b", line[BAD]]]) {
      const share = make("i", { class: name });
      share.style.width = `${line[ROWS] ? (100 * part) / line[ROWS] : 0}%`;
      bar.append(share);
    }
    const why = make("td", { class: "op-causes" });
    for (const [code, rows, colour] of line[CODES]) {
      const swatch = make("i", { class: "op-swatch", "aria-hidden": "true" });
      swatch.style.background = colour;
      const button = filterButton(`${code} × ${number(rows)}`, line[APPID], code);
      button.prepend(swatch);
      why.append(button, " ");
    }
    const row = make("tr", {},
      make("td", {}, filterButton(line[NAME] || line[APPID], line[APPID], line[BAD] ? "" : null, { class: "op-link op-name", title: `${line[NAME]} (${line[APPID]})` })),
      make("td", { class: "op-num", text: number(line[ROWS]) }), make("td", {}, bar),
      make("td", { class: "op-num", text: number(line[GOOD]) }), make("td", { class: line[BAD] ? "op-num op-badtext" : "op-num", text: number(line[BAD]) }),
      make("td", { class: "op-num", text: number(line[TODO]) }), why);
    if (kept && kept[1].contains(document.activeElement)) {
      const at = [...kept[1].querySelectorAll("button")].indexOf(document.activeElement);
      kept[1].replaceWith(row);
      row.querySelectorAll("button")[at]?.focus();
    }
    drawnLines.set(line[APPID], [line, row]);
    return row;
  }

  function draw() {
    const text = search.value.trim().toLowerCase();
    const every = [...merchants.values()];
    for (const [name, button] of chipButtons) {
      const label = words[name === "open" && !running ? "left" : name]; // nobody works on a run that was cut off
      button.textContent = `${label} ${number(every.filter(FITS[name]).length)}`;
      button.setAttribute("aria-pressed", String(name === chip));
    }
    for (const [cell, column] of heads) {
      if (column === sort.by) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const fitting = every.filter((line) => FITS[chip](line) && (!text || line[NAME].toLowerCase().includes(text) || line[APPID].toLowerCase().includes(text)));
    const way = sort.down ? -1 : 1;
    fitting.sort((a, b) => {
      const [x, y] = [a[sort.by], b[sort.by]];
      const order = typeof x === "number" ? x - y : compare(x, y);
      return order ? way * order : compare(a[NAME], b[NAME]) || (a[APPID] < b[APPID] ? -1 : 1);
    });
    const rows = fitting.slice(0, shown).map(lineOf);
    if (rows.length !== body.children.length || rows.some((row, at) => row !== body.children[at])) {
      const focused = body.contains(document.activeElement) ? document.activeElement : null;
      body.replaceChildren(...rows);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    more.hidden = fitting.length <= shown;
    none.textContent = fitting.length ? "" : words.none;
  }

  // --- rows ------------------------------------------------------------------------------------------------------
  const rowTitle = make("h2", { tabindex: "-1" });
  const codeChoice = make("select", { "aria-label": words.code });
  const merchantChoice = make("select", { "aria-label": words.merchant });
  const pathSearch = make("input", { type: "search", placeholder: words.path_search, "aria-label": words.path_search, class: "op-search" });
  const clear = make("button", { type: "button", text: words.clear, class: "op-chip", onclick: () => { pathSearch.value = ""; filter("", "", false); } });
  const rowBody = make("tbody");
  const rowHeads = ["line", "merchant", "env", "path", "outcome", "why"].map((word) => make("th", { scope: "col", text: words[word] }));
  rowHeads.unshift(make("th", { scope: "col" }, make("span", { class: "op-hidden", text: words.details })));
  const rowTable = make("div", { class: "op-scroll op-rows-scroll", tabindex: "0", role: "region", "aria-label": words.row_title },
    make("table", { class: "op-table op-rows", "aria-label": words.row_title }, make("thead", {}, make("tr", {}, ...rowHeads)), rowBody));
  const status = make("span", { role: "status", class: "op-quiet op-row-status" });
  const previous = make("button", { type: "button", class: "op-chip", text: words.previous, onclick: () => { pages.pop(); ask(); } });
  const next = make("button", { type: "button", class: "op-chip op-next-page", text: words.next, onclick: () => { pages.push(answer.rows.at(-1).line); ask(); } });
  codeChoice.addEventListener("change", () => first());
  merchantChoice.addEventListener("change", () => first());
  let typing = 0;
  pathSearch.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => first(), 250); });

  function option(value, label) {
    const made = make("option", { value });
    made.textContent = label;
    return made;
  }

  function drawChoices() {
    const [code, appid] = [codeChoice.value || "bad", merchantChoice.value];
    codeChoice.replaceChildren(option("bad", words.not_succeeded), option("all", words.every_row), ...codes.map(([one, label, rows]) => option(`=${one}`, `${label} · ${number(rows)}`)));
    codeChoice.value = code;
    if (codeChoice.value !== code) codeChoice.value = "bad";
    const ordered = [...merchants.values()].sort((a, b) => b[BAD] - a[BAD] || compare(a[NAME], b[NAME])).slice(0, 1000);
    if (appid && !ordered.some((line) => line[APPID] === appid) && merchants.has(appid)) ordered.push(merchants.get(appid));
    merchantChoice.replaceChildren(option("", words.any), ...ordered.map((line) => option(line[APPID], `${line[NAME]} (${line[APPID]})`)));
    merchantChoice.value = merchants.has(appid) ? appid : "";
  }

  // code: null is all rows, "" all that did not succeed
  function filter(appid, code, move) {
    drawChoices();
    if (appid && merchants.has(appid) && merchantChoice.value !== appid) {
      const line = merchants.get(appid);
      merchantChoice.append(option(appid, `${line[NAME]} (${appid})`));
    }
    merchantChoice.value = appid;
    codeChoice.value = code === null ? "all" : code === "" ? "bad" : `=${code}`;
    if (codeChoice.value === "") codeChoice.value = "bad";
    first();
    if (move) {
      rowTitle.focus({ preventScroll: true });
      rowSection.scrollIntoView({ block: "nearest" });
    }
  }

  function first(auto = false) {
    pages = [-1];
    ask(auto);
  }

  function request(after) {
    const code = codeChoice.value;
    return { ask: "rows", code: code === "all" ? null : code === "bad" ? "" : code.slice(1), appid: merchantChoice.value, path: pathSearch.value.trim(), after };
  }

  function ask(auto = false) {
    const wanted = request(pages.at(-1));
    asked += 1;
    const mine = asked;
    if (ahead?.[1] && ahead[0] === JSON.stringify(wanted)) {
      show(ahead[1]);
      return;
    }
    answered = false;
    status.textContent = words.loading;
    model.send({ ...wanted, id: mine, auto });
    setTimeout(() => { if (mine === asked && !answered) status.textContent = words.lost; }, 20000);
  }

  function show(rows) {
    answered = true;
    answer = rows;
    ahead = null;
    drawRows();
    if (!answer.more) return;
    const wanted = request(answer.rows.at(-1).line);
    ahead = [JSON.stringify(wanted), null];
    asked += 1;
    aheadId = asked;
    model.send({ ...wanted, id: aheadId, auto: true });
  }

  function detailsOf(row) {
    const list = make("dl", { class: "op-facts" });
    for (const [name, value] of [[words.path, row.path], [words.env, row.env], ["appid", row.appid], ...row.facts]) {
      const button = make("button", { type: "button", class: "op-copy", "aria-label": `${words.copy}: ${name}`, text: words.copy });
      button.addEventListener("click", async () => { await copy(value); button.textContent = "✓"; });
      list.append(make("dt", { text: name }), make("dd", {}, make("span", { text: value }), " ", button));
    }
    return make("tr", { class: "op-details" }, make("td", { colspan: "7" }, list));
  }

  // Two lines at most; the whole is in the tooltip, and in the details.
  const two = (name, text) => make("td", { class: name, title: text }, make("span", { class: "op-two", text }));

  function rowOf(row) {
    const opener = make("button", { type: "button", class: "op-link", "aria-expanded": "false", "aria-label": `${words.details}: ${row.line}`, text: "▸" });
    const made = make("tr", {}, make("td", {}, opener), make("td", { class: "op-num", text: number(row.line) }), two("op-merchant", row.merchant), two("op-env", row.env), two("op-path", row.path), make("td", { class: "op-short" }, make("i", { class: `op-swatch ${row.css}`, "aria-hidden": "true" }), row.outcome),
      two("op-why", row.why));
    let details = null;
    opener.addEventListener("click", () => {
      if (details) { details.remove(); details = null; } else { details = detailsOf(row); made.after(details); }
      opener.textContent = details ? "▾" : "▸";
      opener.setAttribute("aria-expanded", String(!!details));
    });
    return made;
  }

  function drawRows() {
    rowBody.replaceChildren(...answer.rows.map(rowOf));
    const count = answer.rows.length;
    const from = answer.rows.length ? number(answer.rows[0].line) : "";
    const to = answer.rows.length ? number(answer.rows.at(-1).line) : "";
    status.textContent = count ? `${number(count)}${answer.total === null ? "" : ` / ${number(answer.total)}`} · ${words.line} ${from}–${to}` : words.no_rows;
    previous.disabled = pages.length < 2;
    next.disabled = !answer.more;
    rowTable.scrollTop = 0;
  }

  // --- the whole -------------------------------------------------------------------------------------------------
  const causeArea = make("div", { class: "op-codes" });
  const chartArea = make("div", { class: "op-charts" });
  const rowSection = make("section", { class: "op-row-section" }, rowTitle, make("div", { class: "op-tools op-row-tools" }, codeChoice, merchantChoice, pathSearch, clear), rowTable,
    make("div", { class: "op-tools" }, previous, next, status));
  rowTitle.textContent = words.row_title;
  const chartTitle = make("h2", { text: words.charts });
  el.classList.add("op-grid-body");
  el.append(make("div", { class: "op-tools op-merchant-tools" }, make("h2", { text: words.merchants }), search, chips), none, scroller, causeArea, rowSection, chartTitle, chartArea);

  function press(event) {
    const cell = event.target.closest?.("[data-code]");
    if (!cell || !el.contains(cell)) return;
    if (event.type === "keydown") {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
    }
    event.stopPropagation();
    filter(cell.dataset.appid ?? "", cell.dataset.code, true);
  }
  el.addEventListener("click", press);
  el.addEventListener("keydown", (event) => {
    press(event);
    // JupyterLab has shortcuts of single keys, which are not meant while one types here.
    event.stopPropagation();
  });

  function setHtml(area, html) {
    const at = [...area.querySelectorAll("[data-code]")].indexOf(document.activeElement);
    area.innerHTML = html;
    for (const code of area.querySelectorAll("span.op-code")) {
      code.setAttribute("role", "button");
      code.setAttribute("tabindex", "0");
    }
    if (at >= 0) area.querySelectorAll("[data-code]")[at]?.focus({ preventScroll: true });
  }

  // The focus of a button that was disabled or hidden would be lost to the page.
  function keepFocus() {
    const panel = el.closest(".op-panel");
    const active = document.activeElement;
    const lost = !active || active === document.body || (panel?.contains(active) && (active.disabled || !active.offsetParent));
    if (lost && panel?.dataset.pressed) [...panel.querySelectorAll(".op-actions button:not([disabled])")].find((button) => button.offsetParent)?.focus({ preventScroll: true });
  }
  const panelPressed = (event) => {
    const button = event.target.closest?.(".op-actions button");
    const panel = event.target.closest?.(".op-panel");
    if (panel) { if (button) panel.dataset.pressed = "1"; else delete panel.dataset.pressed; }
  };
  document.addEventListener("click", panelPressed, true);
  // "Run all" ends with its last cell in view. Until somebody scrolls, types or clicks, the panel stays in view instead.
  let touched = false;
  const begun = performance.now();
  const touch = () => { touched = true; };
  const TOUCHES = ["wheel", "keydown", "pointerdown", "touchstart"];
  for (const name of TOUCHES) document.addEventListener(name, touch, { capture: true, passive: true });
  function keepInView() {
    const panel = el.closest(".op-panel");
    if (touched || performance.now() - begun > 60000 || !panel || document.querySelector(".op-panel") !== panel) return;
    const box = panel.querySelector(".op-header")?.getBoundingClientRect();
    if (box?.height && (box.top < 0 || box.bottom > window.innerHeight)) panel.scrollIntoView({ block: "start" });
  }
  const timer = setInterval(() => { keepFocus(); keepInView(); }, 250);

  function receive(message) {
    if (message.rows) {
      if (message.id !== asked) return;
      if (message.id === aheadId) ahead[1] = message.rows;
      else show(message.rows);
    } else if (message.failed) {
      if (message.id === asked && message.id !== aheadId) { answered = true; status.textContent = words.unread; }
    } else if (message.lines) {
      const other = message.run !== run;
      if (message.full) {
        merchants.clear();
        if (other) drawnLines.clear();
      }
      for (const line of message.lines) merchants.set(line[APPID], line);
      run = message.run;
      running = message.running;
      ahead = null; // the rows may have changed
      if (aheadId === asked) asked += 1;
      codes = message.codes ?? codes;
      draw();
      if (message.causes !== undefined && message.causes !== causes) { causes = message.causes; setHtml(causeArea, causes); }
      if (message.charts !== undefined && message.charts !== charts) { charts = message.charts; setHtml(chartArea, charts); chartTitle.hidden = !charts; }
      if (!rowSection.contains(document.activeElement) || document.activeElement === rowTitle) drawChoices();
      if (other || message.full) {
        if (other) { pathSearch.value = ""; merchantChoice.value = ""; codeChoice.value = codes.length ? "bad" : "all"; }
        first(true);
      }
    }
  }
  model.on("msg:custom", receive);
  model.send({ ask: "all" });
  return () => {
    model.off("msg:custom", receive);
    document.removeEventListener("click", panelPressed, true);
    for (const name of TOUCHES) document.removeEventListener(name, touch, { capture: true });
    clearInterval(timer);
  };
}

export default { render };
