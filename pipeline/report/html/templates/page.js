"use strict";
(async () => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const config = read("config");
  const status = document.getElementById("status");
  const TOUCH = matchMedia("(hover: none)"); // where plotly's toolbar would always be there
  const NARROW = 560; // pixels of a plot from which on there is room for larger text

  /* plotly lies in the page as base64 of gzip, a third of its size; the policy of the page knows its digest. */
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const source = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(source).text();
    document.head.append(script);
  };

  /* A figure names colours of the style sheet; plotly wants them resolved. Only colours are, so that a label is text. */
  const color = (value) => {
    const name = /^var\((--[\w-]+)\)$/.exec(value);
    return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : value;
  };
  const themed = (value, key = "") => {
    if (typeof value === "string") return /colors?(cale)?$/i.test(key) ? color(value) : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
    }
    return value;
  };

  const laidOut = (layout, width) => {
    const given = themed(layout);
    const size = width < NARROW ? 11 : 13;
    given.font = { ...given.font, size, family: getComputedStyle(document.body).fontFamily };
    for (const axis of [given.xaxis, given.yaxis]) if (axis && width < NARROW && axis.nticks) axis.nticks = 4;
    return given;
  };

  /* Names stand where they cover least of points, intervals, lines and other names: beside a point, or beyond an end
     of its interval. [across, along, which end: 0 the point, -1 the upper, 1 the lower] */
  const SPOTS = [[1, 0, 0], [-1, 0, 0], [0, -1, -1], [0, 1, 1], [1, -1, -1], [-1, -1, -1], [1, 1, 1], [-1, 1, 1]];
  const overlap = (a, b) => Math.max(0, Math.min(a[1], b[1]) - Math.max(a[0], b[0])) *
    Math.max(0, Math.min(a[3], b[3]) - Math.max(a[2], b[2]));

  const named = (traces, plot, size) => {
    const shown = traces.filter((trace) => trace.visible && trace.text && trace.error_y);
    if (!shown.length) return [];
    const { xaxis, yaxis } = plot._fullLayout; // plotly's own; this page carries the plotly that it was made with
    const inside = [0, xaxis._length, 0, yaxis._length];
    const ends = (bar, i) => (bar && bar.visible ? [bar.arrayminus[i], bar.array[i]] : [0, 0]);
    const points = shown.flatMap((trace) => trace.x.map((x, i) => {
      const [left, right] = ends(trace.error_x, i).map((reach, side) => xaxis.d2p(x + (side ? reach : -reach)));
      const [low, high] = ends(trace.error_y, i).map((reach, side) => yaxis.d2p(trace.y[i] + (side ? reach : -reach)));
      return { text: trace.text[i], x: xaxis.d2p(x), y: yaxis.d2p(trace.y[i]), left, right, low, high };
    }));
    const taken = points.flatMap((p) => [
      [p.x - 9, p.x + 9, p.y - 9, p.y + 9], [p.x - 5, p.x + 5, p.high - 2, p.low + 2], [p.left - 2, p.right + 2, p.y - 5, p.y + 5],
    ]);
    for (const trace of traces.filter((found) => found.mode === "lines")) {
      const corners = trace.x.map((x, i) => [xaxis.d2p(x), yaxis.d2p(trace.y[i])]);
      const isStepped = trace.line && trace.line.shape === "hv"; // across, then along
      const path = corners.flatMap((at, i) => (isStepped && i ? [[at[0], corners[i - 1][1]], at] : [at]));
      for (let i = 1; i < path.length; i++) {
        const steps = Math.ceil(Math.hypot(path[i][0] - path[i - 1][0], path[i][1] - path[i - 1][1]) / 4) || 1;
        for (let step = 0; step < steps; step++) { // a box every few pixels, however long the line
          const [x, y] = [0, 1].map((k) => path[i - 1][k] + (step / steps) * (path[i][k] - path[i - 1][k]));
          taken.push([x - 3, x + 3, y - 3, y + 3]);
        }
      }
    }
    for (const { x0, x1, y0, y1, xref, yref } of plot.layout.shapes || []) {
      const [left, right] = xref === "paper" ? [0, inside[1]] : [xaxis.d2p(x0), xaxis.d2p(x1)];
      const [low, high] = yref === "paper" ? [inside[3], 0] : [yaxis.d2p(y0), yaxis.d2p(y1)];
      taken.push([left - 2, right + 2, high - 2, low + 2]);
    }
    return points.map((p) => {
      const lines = p.text.split("<br>");
      const [wide, high] = [Math.max(...lines.map((line) => line.length)) * size * 0.58, lines.length * size * 1.25];
      const spots = SPOTS.map(([dx, dy, end], rank) => {
        const from = [end ? p.x : dx < 0 ? p.left : p.right, end < 0 ? p.high : end > 0 ? p.low : p.y];
        const x = from[0] + dx * ((end ? 2 : 10) + wide / 2);
        const y = from[1] + dy * (6 + high / 2);
        const box = [x - wide / 2, x + wide / 2, y - high / 2, y + high / 2];
        const outside = wide * high - overlap(box, inside);
        return { x, y, box, cost: taken.reduce((sum, other) => sum + overlap(box, other), 0) + 3 * outside + 4 * rank };
      });
      const best = spots.reduce((a, b) => (b.cost < a.cost ? b : a));
      taken.push(best.box);
      const [x, y] = [best.x / inside[1], 1 - best.y / inside[3]];
      return { text: p.text, x, y, xref: "x domain", yref: "y domain", xanchor: "center", yanchor: "middle", showarrow: false,
        font: { size }, align: "center" };
    });
  };

  const setUp = (figure) => {
    const drawings = figures[figure.dataset.figure];
    const plot = figure.querySelector(".plot");
    const legend = figure.querySelector(".legend");
    const choose = figure.querySelector("select");
    const hidden = new Set();
    let chosen = 0;
    let turn = 0;

    const draw = () => {
      const drawing = drawings[chosen];
      const traces = themed(drawing.data).map((trace) => ({ ...trace, visible: !hidden.has(trace.meta) }));
      const style = { ...config, displayModeBar: TOUCH.matches ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud", "sendChartToCloud", "editInChartStudio"] };
      const layout = laidOut(drawing.layout, plot.clientWidth);
      const mine = ++turn;
      Plotly.react(plot, traces, layout, style).then(() => {
        if (mine !== turn) return; // drawn again meanwhile
        const names = named(traces, plot, layout.font.size - 1);
        if (names.length) Plotly.relayout(plot, { annotations: names });
      });
      for (const picture of plot.querySelectorAll(".main-svg")) picture.setAttribute("aria-hidden", "true");
      label();
      for (const words of figure.querySelectorAll("[data-plot]")) words.hidden = words.dataset.plot !== String(chosen);
    };

    const label = () => {
      const listed = drawings[chosen].data.filter((trace) => trace.showlegend);
      const names = listed.map((trace) => trace.meta);
      if (legend.dataset.names === JSON.stringify(names)) return;
      legend.dataset.names = JSON.stringify(names);
      legend.replaceChildren(...(listed.length > 1 ? listed.map(entry) : []));
    };

    const entry = (trace) => {
      const button = document.createElement("button");
      const swatch = document.createElement("span");
      const hollow = trace.meta === "dominated";
      swatch.className = hollow ? "swatch hollow" : "swatch";
      swatch.style.setProperty("--swatch", ((trace.marker && trace.marker.line) || trace.line || {}).color || "");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!hidden.has(trace.meta)));
      button.append(swatch, trace.meta);
      button.addEventListener("click", () => {
        if (!hidden.delete(trace.meta)) hidden.add(trace.meta);
        button.setAttribute("aria-pressed", String(!hidden.has(trace.meta)));
        draw();
      });
      return button;
    };

    if (choose) {
      choose.addEventListener("change", () => {
        chosen = Number(choose.value);
        draw();
      });
    }
    draw();
    return draw;
  };

  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // at least it is selected, for Ctrl-C
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Press Ctrl-C";
    status.textContent = done ? "Copied to the clipboard" : "Selected; press Ctrl-C to copy";
    setTimeout(() => {
      button.textContent = "Copy";
      status.textContent = "";
    }, 2000);
  };

  /* Only a box that scrolls is a stop on the way of the Tab key. */
  const stops = () => {
    for (const box of document.querySelectorAll(".scroll, pre")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  const packed = document.getElementById("plotly");
  const canUnpack = typeof DecompressionStream === "function";
  if (packed && canUnpack) await unpack(packed);
  document.getElementById("outdated").hidden = !packed || canUnpack;
  const draws = window.Plotly ? [...document.querySelectorAll("[data-figure]")].map(setUp) : [];
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draws.forEach((draw) => draw()));
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", stops);
  let waiting = 0;
  addEventListener("resize", () => {
    stops();
    clearTimeout(waiting);
    waiting = setTimeout(() => draws.forEach((draw) => draw()), 200);
  });
  stops();
  document.documentElement.dataset.ready = "true";
})();
