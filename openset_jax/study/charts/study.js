// The page of an experiment: draws its charts, hides lines, sorts tables.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const panel = (chart, place) => document.getElementById(`chart-${chart}-${place}`);

  charts.forEach((panels, chart) =>
    panels.forEach(({ data, layout }, place) =>
      Plotly.newPlot(panel(chart, place), data, layout, { responsive: true, displayModeBar: false })
    )
  );

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const chart = Number(button.dataset.chart), line = Number(button.dataset.line);
      const visible = button.getAttribute("aria-pressed") === "false";
      button.setAttribute("aria-pressed", String(visible));
      charts[chart].forEach(({ data }, place) => {
        const traces = [...data.keys()].filter((i) => data[i].meta === line);
        if (traces.length) Plotly.restyle(panel(chart, place), { visible }, traces);
      });
    });
  }

  for (const select of document.querySelectorAll(".by select")) {
    const show = () => {
      for (const row of document.getElementById(select.dataset.table).tBodies[0].rows) {
        row.hidden = select.value !== "" && row.dataset.by !== select.value;
      }
    };
    select.addEventListener("change", show);
    show();
  }

  // Sorts numbers by value and other cells as text; cells without a number stay at the end.
  function sort(table, column, descending) {
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const missing = (text) => text === "";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return descending ? -order : order;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) =>
      head.firstElementChild.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending" || (column > 0 && !head.hasAttribute("aria-sort"));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      })
    );
  }
})();
