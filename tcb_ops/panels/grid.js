// The front end of a run's tabs: an ES module without dependencies, loaded by anywidget.
// All text is set as textContent; the HTML of causes and charts comes from Python, which escapes it.

const PAGE = 50; // merchants that are drawn at a time
const [APPID, NAME, ROWS, GOOD, BAD, TODO, CODES, SHARES, ENVS, NEW, OWN] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const AGES = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [Infinity, "day", 86400]];
const KEYS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

const compare = new Intl.Collator(undefined, { numeric: true }).compare; // localeCompare would make a collator for each comparison

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

// Of these elements one of each kind is in the order of Tab; the arrow keys lead to the others.
const GROUPS = [".op-chips button", ".op-sort", ".op-by-merchant .op-line", ".op-rows .op-line", ".op-heat [data-code]"];

function rove(items) {
  const current = items.find((item) => item === document.activeElement) ?? items.find((item) => item.tabIndex === 0) ?? items[0];
  for (const item of items) item.tabIndex = item === current ? 0 : -1;
}

function moved(event, items) {
  const at = items.indexOf(event.target);
  if (at < 0 || !(event.key in KEYS)) return null;
  event.preventDefault();
  const next = items[Math.min(Math.max(at + KEYS[event.key], 0), items.length - 1)];
  next.focus();
  rove(items);
  return next;
}

function render({ model, el }) {
  const words = { ...model.get("words") };
  const relative = new Intl.RelativeTimeFormat(words.lang, { numeric: "auto", style: words.lang === "zh" ? "short" : "long" });
  const panelOf = () => el.closest(".op-panel");
  let dead = false;
  function send(message) {
    try {
      if (!dead) model.send(message);
    } catch {
      die();
    }
  }
  const merchants = new Map();
  let [run, running, codes] = ["", false, []];
  let sort = { by: BAD, down: true };
  let chip = "all";
  let shown = PAGE;
  let [asked, pages] = [0, [-1]]; // the number of the newest request for rows; the line before each page, the current one last
  let answer, causes, charts;

  // --- merchants -------------------------------------------------------------------------------------------------
  const search = make("input", { type: "search", placeholder: words.search, "aria-label": words.search, class: "op-search", oninput: () => { shown = PAGE; draw(); } });
  const body = make("tbody");
  const none = make("p", { class: "op-quiet", role: "status" });
  const more = make("button", { type: "button", class: "op-more", text: words.more, onclick: () => { shown += 100; draw(); } });
  const HEADS = [["merchant", NAME], ["units", ROWS], ["progress", null], ["good", GOOD], ["bad", BAD], ["todo", TODO], ["why", null]];
  const heads = HEADS.map(([word, column]) => {
    const cell = make("th", { scope: "col", class: column >= ROWS ? "op-num" : "" });
    if (column === null) cell.textContent = words[word];
    else cell.append(make("button", { type: "button", class: "op-sort", "data-head": word, text: words[word], onclick: () => {
      sort = { by: column, down: sort.by === column ? !sort.down : column >= ROWS };
      draw();
    } }));
    return [cell, column];
  });
  const scroller = make("div", { class: "op-scroll op-merchants-scroll", role: "region", "aria-label": words.merchants },
    make("table", { class: "op-table op-by-merchant", "aria-label": words.merchants }, make("thead", {}, make("tr", {}, ...heads.map(([cell]) => cell))), body), more);
  const FITS = { all: () => true, bad: (line) => line[BAD] > 0, open: (line) => line[TODO] > 0 && !line[BAD] && line[TODO] < line[ROWS], not_begun: (line) => line[TODO] === line[ROWS] && line[ROWS] > 0, good: (line) => !line[BAD] && !line[TODO] };
  const chipButtons = Object.keys(FITS).map((name) => [name, make("button", { type: "button", class: "op-chip", onclick: () => { chip = name; shown = PAGE; draw(); } })]);
  const chips = make("div", { class: "op-chips", role: "group", "aria-label": words.state }, ...chipButtons.map(([, button]) => button));

  const drawnLines = new Map(); // appid -> [line, row]: a line that has not changed keeps its row, and its focus
  function lineOf(line) {
    const kept = drawnLines.get(line[APPID]);
    if (kept && kept[0] === line) return kept[1];
    const bar = make("span", { class: "op-bar", "aria-hidden": "true" });
    for (const [name, part] of line[SHARES]) {
      const share = make("i", { class: name });
      share.style.width = `${(100 * part) / line[ROWS]}%`;
      bar.append(share);
    }
    const why = make("td", { class: "op-causes", text: line[CODES].map(([code, rows]) => `${code} × ${number(rows)}`).join("  ") });
    const name = make("td", {}, make("span", { class: "op-name", title: `${line[NAME]} (${line[APPID]})`, text: line[NAME] || line[APPID] }));
    if (line[NEW]) name.append(make("span", { class: "op-mark op-new-mark", text: words.new }));
    if (line[OWN].length) name.append(make("span", { class: "op-own op-quiet", title: line[OWN].map(([column, value]) => `${column}: ${value}`).join("\n"), text: line[OWN].map(([, value]) => value).join(" · ") }));
    const row = make("tr", { class: "op-line", "data-appid": line[APPID], "data-code": line[BAD] ? "" : "all" }, name,
      make("td", { class: "op-num", text: number(line[ROWS]) }), make("td", {}, bar),
      make("td", { class: "op-num", text: number(line[GOOD]) }), make("td", { class: line[BAD] ? "op-num op-badtext" : "op-num", text: number(line[BAD]) }),
      make("td", { class: "op-num", text: number(line[TODO]) }), why);
    drawnLines.set(line[APPID], [line, row]);
    return row;
  }

  function draw() {
    const text = search.value.trim().toLowerCase();
    const fits = (value) => value.toLowerCase().includes(text);
    const every = [...merchants.values()].filter((line) => !text || [line[NAME], line[APPID], line[ENVS]].some(fits) || line[OWN].some(([, value]) => fits(value)));
    for (const [name, button] of chipButtons) {
      const label = words[name === "open" && !running ? "todo" : name]; // nobody works on a run that was cut off
      button.textContent = `${label} ${number(every.filter(FITS[name]).length)}`;
      button.setAttribute("aria-pressed", String(name === chip));
    }
    for (const [cell, column] of heads) cell.ariaSort = column !== sort.by ? null : sort.down ? "descending" : "ascending";
    const fitting = every.filter(FITS[chip]);
    fitting.sort((a, b) => {
      const [x, y] = [a[sort.by], b[sort.by]];
      const order = typeof x === "number" ? x - y : compare(x, y);
      return (sort.down ? -order : order) || compare(a[NAME], b[NAME]) || (a[APPID] < b[APPID] ? -1 : 1);
    });
    const rows = fitting.slice(0, shown).map(lineOf);
    if (rows.length !== body.children.length || rows.some((row, at) => row !== body.children[at])) {
      const focused = body.contains(document.activeElement) ? document.activeElement.dataset.appid : "";
      body.replaceChildren(...rows);
      if (focused) rows.find((row) => row.dataset.appid === focused)?.focus({ preventScroll: true });
    }
    groups().forEach(rove);
    more.hidden = fitting.length <= shown;
    none.textContent = fitting.length ? "" : words.none;
  }

  // --- rows ------------------------------------------------------------------------------------------------------
  const codeChoice = make("select", { "aria-label": words.code, onchange: () => first() });
  let only = ""; // the appid of the merchant whose rows are shown
  const everybody = make("button", { type: "button", class: "op-chip", title: words.clear, onclick: () => filter("", codeOf()) });
  const pathSearch = make("input", { type: "search", placeholder: words.path_search, "aria-label": words.path_search, class: "op-search", oninput: () => first(false, 250) });
  const rowBody = make("tbody");
  const rowHeads = ["line", "merchant", "env", "path", "outcome", "why"].map((word) => make("th", { scope: "col", text: words[word] }));
  const rowTable = make("div", { class: "op-scroll op-rows-scroll", role: "region", "aria-label": words.units },
    make("table", { class: "op-table op-rows", "aria-label": words.units }, make("thead", {}, make("tr", {}, ...rowHeads)), rowBody));
  const status = make("span", { role: "status", class: "op-quiet op-row-status" });
  const previous = make("button", { type: "button", class: "op-chip", text: words.previous, onclick: () => { pages.pop(); ask(); } });
  const next = make("button", { type: "button", class: "op-chip op-next-page", text: words.next, onclick: () => { pages.push(answer.rows.at(-1).line); ask(); } });

  const codeOf = () => (codeChoice.value === "all" ? null : codeChoice.value.slice(1)); // "" (did not succeed) for "!", a code for "=CODE"

  function drawChoices() {
    const code = codeChoice.value;
    const options = [["!", words.bad], ["all", words.all], ...codes.map(([each, label, rows]) => [`=${each}`, `${label} · ${number(rows)}`])];
    codeChoice.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
    codeChoice.value = options.some(([value]) => value === code) ? code : "!";
    everybody.hidden = !only;
    everybody.textContent = `✕ ${merchants.get(only)?.[NAME] || only}`;
  }

  function filter(appid, code) {
    only = appid;
    drawChoices();
    codeChoice.value = code === null ? "all" : code === "" ? "!" : `=${code}`;
    first();
    openTab("rows").focus();
  }

  const first = (auto = false, delay = 0) => { pages = [-1]; ask(auto, delay); };

  // Of several that wait, the last is sent.
  function ask(auto = false, delay = 0) {
    const mine = (asked += 1);
    status.textContent = words.loading;
    rowTable.ariaBusy = "true";
    setTimeout(() => { if (mine === asked && rowTable.ariaBusy === "true") status.textContent = words.lost; }, 20000);
    const given = { ask: "rows", id: mine, auto, code: codeOf(), appid: only, path: pathSearch.value.trim(), after: pages.at(-1) };
    setTimeout(() => { if (mine === asked) send(given); }, delay);
  }

  function detailsOf(row) {
    const facts = [...(row.path ? [[words.path, row.path]] : []), [words.env, row.env], ["appid", row.appid], ...row.facts];
    const list = make("dl", { class: "op-facts" }, ...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
    return make("tr", { class: "op-details" }, make("td", { colspan: "6" }, list));
  }

  // Two lines at most; the whole is in the tooltip, and in the details.
  const two = (name, text) => make("td", { class: name, title: text }, make("span", { class: "op-two", text }));

  function rowOf(row) {
    const made = make("tr", { class: "op-line" }, make("td", { class: "op-num", text: number(row.line) }), two("op-merchant", row.merchant), two("op-env", row.env), two("op-path", row.path), make("td", { class: "op-short" }, make("i", { class: `op-swatch ${row.css}`, "aria-hidden": "true" }), row.outcome),
      two("op-why", row.why));
    let details = null;
    made.addEventListener("click", () => {
      if (String(getSelection())) return; // somebody marks text to copy it
      if (details) { details.remove(); details = null; } else { details = detailsOf(row); made.after(details); }
    });
    return made;
  }

  function drawRows() {
    rowBody.replaceChildren(...answer.rows.map(rowOf));
    groups().forEach(rove);
    const count = answer.rows.length;
    const total = answer.total === null ? "" : ` / ${number(answer.total)}`;
    status.textContent = count ? `${number(count)}${total} · ${words.line} ${number(answer.rows[0].line)}–${number(answer.rows.at(-1).line)}` : words.none;
    previous.disabled = pages.length < 2;
    next.disabled = !answer.more;
    rowTable.scrollTop = 0;
  }

  // A page without TLS has no clipboard: there the text is selected and copied as by hand.
  async function copy(button) {
    const [text, label] = [button.dataset.copy, button.textContent];
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea", { text, "aria-hidden": "true" });
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = label; }, 2000);
  }

  // JupyterLab and Notebook 7 write it as the cell below the panel's, which the press has selected; any other front end gets it copied.
  function addCell(text) {
    const commands = ["notebook:insert-cell-below", "notebook:replace-selection"];
    const button = make("button", { type: "button", hidden: true, "data-copy": text, "data-commandlinker-command": "apputils:run-all-enabled", "data-commandlinker-args": JSON.stringify({ commands, args: { text } }) });
    el.append(button);
    if (document.querySelector(".jp-Notebook")) button.click();
    else copy(button);
    setTimeout(() => button.remove(), 3000);
  }

  // --- the tabs --------------------------------------------------------------------------------------------------
  const causeArea = make("div", { class: "op-codes op-scroll" });
  const chartArea = make("div", { class: "op-charts" });
  const keys = () => make("p", { class: "op-quiet op-keys", text: words.keys });
  const PARTS = {
    todo: [words.to_do, causeArea],
    merchants: [words.merchants, make("div", { class: "op-tools" }, search, chips), none, scroller, keys()],
    rows: [words.units, make("div", { class: "op-tools op-row-tools" }, codeChoice, pathSearch, everybody), rowTable, make("div", { class: "op-tools" }, previous, next, status), keys()],
    charts: [words.charts, chartArea],
    files: [words.files, make("p", { class: "op-quiet op-no-files", text: words.no_files })],
  };
  const tabs = Object.entries(PARTS).map(([name, [label, ...parts]]) => [
    make("button", { type: "button", role: "tab", "data-tab": name, "data-head": name === "rows" && "units", text: label, onclick: () => { openTab(name); panelOf().scrollIntoView({ block: "start" }); } }),
    make("section", { role: "tabpanel", "aria-label": label, class: `op-part-${name}` }, ...parts),
  ]);
  let chosen = false; // somebody works in a tab: none opens by itself
  for (const name of ["pointerdown", "keydown"]) el.addEventListener(name, () => { chosen = true; });
  const groups = () => GROUPS.map((group) => [...el.querySelectorAll(group)]);
  el.classList.add("op-grid-body");
  el.append(make("div", { class: "op-tabs", role: "tablist", "aria-label": words.tabs }, ...tabs.map(([tab]) => tab)), ...tabs.map(([, part]) => part));

  const isAbove = () => panelOf().getBoundingClientRect().top < (document.querySelector(".jp-WindowedPanel-outer")?.getBoundingClientRect().top ?? 0) - 1;
  function openTab(name) {
    if (panelOf()) panelOf().dataset.tab = name;
    if (panelOf() && isAbove()) panelOf().scrollIntoView({ block: "start" });
    for (const [tab, part] of tabs) {
      const open = tab.dataset.tab === name;
      tab.setAttribute("aria-selected", String(open));
      tab.tabIndex = open ? 0 : -1;
      part.hidden = !open;
    }
    return tabs.find(([tab]) => tab.dataset.tab === name)[0];
  }
  openTab("merchants");

  el.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-code]");
    for (const ask of ["why", "retry", "fix", "cell"]) {
      const cause = event.target.closest(`[data-${ask}]`);
      if (cause) send({ ask, value: cause.dataset[ask] });
    }
    const letter = event.target.closest("[data-copy]");
    if (letter) copy(letter);
    if (!cell) return;
    filter(cell.dataset.appid ?? "", cell.dataset.code === "all" ? null : cell.dataset.code);
  });
  el.addEventListener("keydown", (event) => {
    moved(event, tabs.map(([tab]) => tab))?.click();
    for (const items of groups()) moved(event, items);
    if (!["Enter", " "].includes(event.key) || !event.target.matches("[role=button], .op-line")) return;
    event.preventDefault();
    event.target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });

  function setHtml(area, html) {
    const at = [...area.querySelectorAll("[data-code]")].indexOf(document.activeElement);
    area.innerHTML = html;
    if (at >= 0) area.querySelectorAll("[data-code]")[at]?.focus({ preventScroll: true });
    groups().forEach(rove);
  }

  // The focus of a button that was disabled or hidden would be lost to the page: Cancel gets it, else that button when it is enabled, else the next.
  function keepFocus() {
    const [panel, active] = [panelOf(), document.activeElement];
    for (const text of panel?.querySelectorAll(".op-header .op-message") ?? []) text.tabIndex = text.scrollHeight > text.clientHeight + 1 ? 0 : -1; // the keyboard scrolls it
    for (const button of panel?.querySelectorAll(".op-opens") ?? []) button.ariaExpanded = String(button.classList.contains("op-opened"));
    if (panel) panel.tabIndex = -1; // a click on its text puts the focus into it
    const lost = active === document.body || (panel?.contains(active) && (active.disabled || !active.offsetParent));
    if (!lost || !pressed) return;
    const shown = (names) => [...panel.querySelectorAll(`:is(.op-actions, .op-menu) :is(${names}):not([disabled])`)].find((button) => button.offsetParent);
    (shown(".op-cancel") ?? (pressed.offsetParent ? pressed : shown(".op-run, .op-resume, .op-retry-menu, .op-export-menu")))?.focus({ preventScroll: true });
  }
  const panelPressed = (event) => {
    if (!panelOf()?.contains(event.target)) return;
    // A retry of what matches a filter sends what is shown: while that is being read, the button is dimmed.
    if (event.target.closest(".op-retry") && rowTable.ariaBusy === "true") event.stopPropagation();
    pressed = event.target.closest(":is(.op-actions, .op-menu) button");
    const link = event.target.closest("[data-run], .op-run-table tr:has([data-run])");
    if (link) send({ ask: "open", value: (link.dataset.run ? link : link.querySelector("[data-run]")).dataset.run });
  };
  const listening = new AbortController();
  const shield = (event) => { if (event.key === "Enter" || !(event.ctrlKey || event.metaKey)) event.stopPropagation(); }; // single keys are JupyterLab's shortcuts
  document.addEventListener("click", panelPressed, { capture: true, signal: listening.signal });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !panelOf()?.contains(event.target)) return;
    panelOf().querySelector(".op-opened")?.click();
  }, { capture: true, signal: listening.signal });
  // "Run all" ends with its last cell in view. Until somebody scrolls, types or clicks, the panel stays in view instead;
  // then it is scrolled into view when a box opens, or says something else, out of view.
  let [touched, said, pressed] = [false, "", null]; // said: the number of the box that is open, and its message; pressed: the button that was clicked last
  const begun = performance.now();
  for (const name of ["wheel", "keydown", "pointerdown", "touchstart"]) document.addEventListener(name, () => { touched = true; }, { capture: true, passive: true, signal: listening.signal });
  function keepInView() {
    const panel = panelOf();
    const boxes = [...(panel?.querySelectorAll(".op-menu") ?? [])];
    const open = boxes.findIndex((box) => box.offsetParent);
    const before = said;
    said = `${open} ${boxes[open]?.querySelector(".op-message")?.textContent}`;
    const isFirst = panel && performance.now() - begun < 60000 && document.querySelector(".op-panel") === panel;
    if (touched ? open < 0 || said === before : !isFirst) return;
    const { height, bottom } = (touched ? boxes[open] : panel.querySelector(".op-header")).getBoundingClientRect();
    if (height && (isAbove() || bottom > window.innerHeight - (touched ? 0 : 300))) panel.scrollIntoView({ block: "start" });
  }
  function showAges() {
    for (const time of panelOf()?.querySelectorAll("time[data-at]") ?? []) {
      time.title ||= time.textContent;
      const age = Math.max(1, Date.now() / 1000 - time.dataset.at);
      const [, unit, seconds] = AGES.find(([most]) => age < most);
      time.textContent = relative.format(-Math.floor(age / seconds), unit).replace(/^\d+(?=[^\d ])/, "$& ");
    }
  }
  let looked = performance.now(); // when Python was last asked what other processes have changed
  function look() {
    if (performance.now() - looked < 10000 || !el.checkVisibility() || document.hidden) return;
    looked = performance.now();
    if (kernel?.connectionStatus === "disconnected") kernel.reconnect().catch(() => {}); // JupyterLab gives up after minutes
    else if (!running) send({ ask: "look" });
  }
  const timer = setInterval(() => { panelOf()?.addEventListener("keydown", shield, { signal: listening.signal }); if (dead) disable(); else { keepFocus(); keepInView(); showAges(); look(); } }, 250);

  // A kernel that was restarted or killed knows nothing of this panel.
  function die() {
    if (dead) return;
    dead = true;
    asked += 1;
    status.textContent = "";
    panelOf()?.classList.add("op-dead");
    panelOf()?.querySelector(".op-header")?.prepend(make("p", { role: "status", class: "op-message op-bad", text: words.dead }));
    disable();
  }
  function disable() {
    for (const control of panelOf()?.querySelectorAll("button, input, select") ?? []) control.disabled = true;
    for (const line of panelOf()?.querySelectorAll(".op-line, [role=button]") ?? []) line.removeAttribute("tabindex");
  }
  const kernel = model.widget_manager?.kernel;
  const signals = [kernel?.statusChanged, kernel?.connectionStatusChanged]; // once connected again, all is asked for: what a sleeping browser was sent is lost
  const heard = (_sender, state) => { if (state === "connected") send({ ask: "all" }); else if (/restarting|dead|terminating/.test(state)) die(); };
  for (const signal of signals) signal?.connect(heard);

  function receive(message) {
    if (message.rows || message.failed) {
      if (message.id !== asked) return;
      rowTable.ariaBusy = "false";
      answer = message.rows ?? answer;
      if (message.rows) drawRows();
      else status.textContent = words.unread;
    } else if (message.tab) {
      openTab(message.tab);
    } else if (message.cell) {
      addCell(message.cell);
    } else if (message.lines) {
      const other = message.run !== run;
      const turned = other || message.running !== running;
      Object.assign(words, message.words);
      for (const head of el.querySelectorAll("[data-head]")) head.textContent = words[head.dataset.head];
      if (message.full) for (const drawn of [merchants, drawnLines]) drawn.clear();
      if (other) { search.value = ""; chip = "all"; chosen = false; }
      for (const line of message.lines) merchants.set(line[APPID], line);
      ({ run, running } = message);
      codes = message.codes ?? codes;
      if (message.listed !== undefined) el.classList.toggle("op-unlisted", !message.listed);
      draw();
      if (message.causes !== undefined && message.causes !== causes) { causes = message.causes; setHtml(causeArea, causes || `<p class="op-quiet">${words.nothing_to_do}</p>`); }
      if (message.charts !== undefined && message.charts !== charts) { charts = message.charts; setHtml(chartArea, charts || `<p class="op-quiet">${words.no_charts}</p>`); }
      if (!el.querySelector(".op-part-rows").contains(document.activeElement)) drawChoices();
      if (turned && !chosen) {
        pathSearch.value = only = "";
        codeChoice.value = causes && !running ? "!" : "all";
        openTab(causes && !running ? "todo" : "merchants");
      }
      if (message.full) first(true);
    }
  }
  model.on("msg:custom", receive);
  send({ ask: "all" });
  return () => {
    model.off("msg:custom", receive);
    listening.abort();
    clearInterval(timer);
    for (const signal of signals) signal?.disconnect(heard);
  };
}

export default { render };
