// Reads the inputs of the page, and shows the metrics that `operating_point.js` computes.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const points = makeOperatingPoints(data), { K, NONE, steps, sum, same } = points;
  const columns = [...data.classes, "none"], rows = [...data.classes, ...data.titles];
  const savedThreshold = toNumber(data.threshold);
  const at = {}; // the operating point: threshold, prior, costs, best

  // Infinities are "inf" and "-inf", as in Python; text that is not a number is NaN.
  function toNumber(text) {
    const said = String(text).trim().toLowerCase();
    if (/^[+-]?inf(inity)?$/.test(said)) return said.startsWith("-") ? -Infinity : Infinity;
    return said === "" ? NaN : Number(said);
  }
  const toText = (number) => (Number.isFinite(number) ? String(number) : number > 0 ? "inf" : "-inf");

  // ---- output

  const percent = (value) => (value === null ? "-" : (100 * value).toFixed(2) + " %");
  const plain = (value) => (value === null ? "-" : value.toFixed(4));

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function showPoint(point) {
    for (const [key, value] of Object.entries(point)) {
      const cell = document.querySelector(`[data-now="${key}"]`);
      if (!cell) continue; // right classes, if there is one known class
      cell.textContent = key.startsWith("expected_cost") ? plain(value) : percent(value);
      cell.dataset.value = value === null ? "" : String(value);
    }
    const parts = [["known", "known images accepted", point.known_recall]];
    data.kinds.forEach((kind, j) => parts.push([kind, data.titles[j] + " rejected", point["rejected." + kind]]));
    byId("summary").replaceChildren(
      ...parts.map(([kind, text, value]) => {
        const part = element("span", `${text} ${percent(value)}`), dot = element("i", "");
        dot.style.background = data.colours[kind];
        part.prepend(dot);
        return part;
      })
    );
  }

  const isRight = (row, column) => column === Math.min(row, NONE);

  // Shows the matrix, which is created once and then filled; with more than 25 classes, the most frequent confusions instead.
  function showConfusion(where, table) {
    if (!where) return;
    if (K > 25) return showPairs(where, table);
    if (!where.firstChild) where.append(emptyMatrix());
    const cells = where.querySelectorAll("td");
    table.forEach((row, r) =>
      row.forEach((n, c) => {
        const cell = cells[r * (K + 1) + c], part = n / Math.max(1, sum(row));
        cell.textContent = n.toLocaleString("en");
        cell.dataset.count = n;
        cell.style.background = n ? `rgba(${isRight(r, c) ? "0, 114, 178" : "213, 94, 0"}, ${0.06 + 0.54 * part})` : "#fafafa";
        cell.title = `${rows[r]} answered ${columns[c]}: ${percent(part)} of ${sum(row)}`;
      })
    );
  }

  function emptyMatrix() {
    const made = element("table", "", { class: K > 6 ? "confusion many" : "confusion" });
    const head = made.createTHead().insertRow(), body = made.createTBody();
    head.append(element("th", "truth", { scope: "col" }));
    columns.forEach((name) => head.append(element("th", name, { scope: "col", title: name })));
    rows.forEach((name) => {
      const row = body.insertRow();
      row.append(element("th", name, { scope: "row", title: name }), ...columns.map(() => element("td", "")));
    });
    return made;
  }

  function showPairs(where, table) {
    const pairs = table.flatMap((row, r) => row.map((n, c) => ({ n, r, c, part: n / Math.max(1, sum(row)) })));
    const worst = pairs.filter(({ n, r, c }) => n && !isRight(r, c)).sort((a, b) => b.n - a.n).slice(0, 15);
    const made = element("table", ""), head = made.createTHead().insertRow(), body = made.createTBody();
    head.append(element("th", "truth", { scope: "col" }), element("th", "answer", { scope: "col", class: "text" }));
    head.append(element("th", "images", { scope: "col" }), element("th", "of the truth's", { scope: "col" }));
    for (const { n, r, c, part } of worst) {
      const row = body.insertRow();
      row.append(element("th", rows[r], { scope: "row" }), element("td", columns[c], { class: "text" }));
      row.append(element("td", n.toLocaleString("en"), { "data-count": n }), element("td", percent(part)));
    }
    where.replaceChildren(element("p", `The ${worst.length} pairs confused most:`), made);
  }

  // ---- figures: traces with `meta` follow the inputs

  function draw() {
    for (const [name, { data: traces, layout }] of Object.entries(data.figures)) {
      Plotly.newPlot(byId(name), traces, layout, { responsive: true, displayModeBar: false });
    }
  }

  // Returns the new x and y of a trace.
  function moved(name, meta, point, curves, top) {
    const here = Number.isFinite(at.threshold) ? at.threshold : null;
    if (meta.cost) return [curves[meta.cost].x, curves[meta.cost].y];
    if (meta.threshold) return [[here, here], [0, top]];
    if (name === "cost") return [[here], [point["expected_cost." + meta.point]]];
    const rejected = point["rejected." + meta.point];
    return [[rejected === null ? null : 1 - rejected], [name === "roc" ? point.known_recall : point.known_accuracy]];
  }

  function moveFigures(point) {
    const curves = Object.fromEntries(data.kinds.map((kind, j) => [kind, points.costCurve(j, at)]));
    const highest = 1.05 * Math.max(0, ...Object.values(curves).flatMap(({ y }) => y)) || 1;
    for (const [name, { data: traces, layout }] of Object.entries(data.figures)) {
      const places = [...traces.keys()].filter((place) => traces[place].meta);
      const top = name === "cost" ? highest : layout.yaxis.range[1];
      const to = places.map((place) => moved(name, traces[place].meta, point, curves, top));
      const range = name === "cost" ? { "yaxis.range": [0, top] } : {};
      if (places.length) Plotly.update(byId(name), { x: to.map(([x]) => x), y: to.map(([, y]) => y) }, range, places);
    }
  }

  let pending = null;
  function update() {
    const table = points.confusion(at), point = points.operatingPoint(table, at);
    showPoint(point);
    showConfusion(byId("confusion"), table);
    if (!pending) requestAnimationFrame(() => (moveFigures(pending), (pending = null)));
    pending = point;
  }

  // ---- inputs

  const slider = byId("slider"), field = byId("threshold"), error = byId("error");
  const priorFields = [...document.querySelectorAll("#prior input")], costFields = [...document.querySelectorAll("#costs input")];
  const touched = new Set();
  const ownPriors = priorFields.length === K + 1;
  const savedPriors = ownPriors ? data.prior : [data.prior[NONE]];

  // Shows the first error of the inputs, and returns it.
  function showError() {
    const read = [readThreshold(), readPrior(), readCosts()], wrong = read.find((value) => typeof value === "string");
    error.textContent = wrong ? wrong + " Until it is corrected, the numbers use the last valid input." : "";
    error.hidden = !wrong;
    byId("scale").hidden = !(typeof read[1] === "string" && read[1].includes("sum to 1"));
    return wrong;
  }

  function readThreshold() {
    const value = toNumber(field.value);
    return Number.isNaN(value) ? 'The threshold must be a number, "inf" or "-inf".' : value;
  }

  function setThreshold(value) {
    at.threshold = value;
    let low = 0, high = steps.length - 1; // finds the largest step that is not above the threshold
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (steps[middle] <= value) low = middle;
      else high = middle - 1;
    }
    slider.value = low;
    slider.setAttribute("aria-valuetext", toText(value));
  }

  // A field shows rounded numbers; unless the reader changed it, the exact number counts.
  const typed = (input, saved) => (touched.has(input) ? toNumber(input.value) : saved);

  function readPrior() {
    const given = priorFields.map((input, k) => typed(input, savedPriors[k]));
    const names = ownPriors ? columns : ["none"];
    const wrong = given.findIndex((p) => !(p >= 0 && p <= 1));
    if (wrong >= 0) return `The prior of "${names[wrong]}" must be a number from 0 to 1.`;
    let result = given;
    if (!ownPriors) {
      const known = data.prior.slice(0, K), all = sum(known);
      result = given[0] === data.prior[NONE] ? data.prior : [...known.map((p) => (1 - given[0]) * (all ? p / all : 1 / K)), given[0]];
    }
    const total = sum(result);
    if (!(Math.abs(total - 1) <= 1e-6)) return `The prior must sum to 1; it sums to ${Number(total.toPrecision(6))}.`;
    const unseen = data.posterior ? result.findIndex((p, k) => p > 0 && !(data.fitted_prior[k] > 0)) : -1;
    if (unseen >= 0) return `"${columns[unseen]}" was never trained on: its prior must be 0.`;
    return same(result, data.prior) ? data.prior : result.map((p) => p / total);
  }

  // `prior_and_costs.cost_matrix`
  function readCosts() {
    if (!costFields.some((input) => touched.has(input))) return savedCosts();
    const named = costFields.map((input, j) => (input.value.trim() === "" && !data.named_costs ? 1 : typed(input, data.named_costs?.[j])));
    if (!named.every((cost) => cost >= 0 && Number.isFinite(cost))) return "A cost must be a number, 0 or more.";
    const [acceptNone, confuse, reject] = named;
    const cost = (y, k) => (y === k ? 0 : y === NONE ? acceptNone : k === NONE ? reject : confuse);
    const made = Array.from({ length: K + 1 }, (_, y) => Array.from({ length: K + 1 }, (_, k) => cost(y, k)));
    return Object.assign(made, { named });
  }
  const savedCosts = () => Object.assign(data.costs, { named: data.named_costs });

  function onInputs() {
    if (showError()) return;
    Object.assign(at, { prior: readPrior(), costs: readCosts() });
    at.best = points.cheapestClasses(at.prior, at.costs);
    update();
  }

  function reset() {
    touched.clear();
    const show = (p) => (Number.isFinite(p) ? String(Number(p.toPrecision(4))) : "");
    priorFields.forEach((input, k) => (input.value = show(savedPriors[k])));
    costFields.forEach((input, j) => (input.value = data.named_costs ? String(data.named_costs[j]) : ""));
    setThreshold(savedThreshold);
    field.value = toText(savedThreshold);
    onInputs();
  }

  slider.max = steps.length - 1;
  slider.addEventListener("input", () => {
    setThreshold(steps[Number(slider.value)]);
    field.value = toText(at.threshold);
    showError();
    update();
  });
  field.addEventListener("input", () => {
    showError();
    const value = readThreshold();
    if (typeof value === "string") return;
    setThreshold(value);
    update();
  });
  for (const input of [...priorFields, ...costFields]) {
    input.addEventListener("input", () => (touched.add(input), onInputs()));
  }
  byId("scale").addEventListener("click", () => {
    const given = priorFields.map((input, k) => typed(input, savedPriors[k]));
    priorFields.forEach((input, k) => ((input.value = String(given[k] / sum(given))), touched.add(input)));
    onInputs();
  });
  byId("reset").addEventListener("click", reset);

  draw();
  showConfusion(byId("confusion-saved"), data.confusion);
  reset();
})();
