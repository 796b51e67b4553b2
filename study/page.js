// Moves what page.py has prepared: chooses arrays and hands them to plotly. No value of a surrogate is computed here.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const numberText = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const percent = (share) => `${(100 * share).toFixed(1)} %`;

// --- Arrays and looks

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The numbers of what page.py's pack has packed. */
function unpack({ scale, data }) {
  const integers = new Int16Array(bytes(data).buffer);
  return Float32Array.from(integers, (integer) => (integer === -32768 ? NaN : integer * scale));
}

/** The value of a colour of the style sheet, in its light or dark form. */
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function methodColor(method) {
  return data.looks[method][dark.matches ? "color_on_dark" : "color"];
}

function layout(options) {
  const axis = { gridcolor: color("line"), zerolinecolor: color("line"), linecolor: color("line") };
  return {
    margin: { l: 58, r: 12, t: 8, b: 42 },
    font: { color: color("ink"), family: "system-ui, sans-serif", size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: color("panel"), font: { color: color("ink") } },
    showlegend: false,
    dragmode: touch ? false : "zoom",
    hovermode: "closest",
    ...options,
    xaxis: { ...axis, ...options.xaxis },
    yaxis: { ...axis, ...options.yaxis },
  };
}

function draw(id, traces, options) {
  const settings = { responsive: true, displaylogo: false, displayModeBar: false };
  return Plotly.react(id, traces, layout(options), settings);
}

function verticals(places) {
  return places.map((x) => ({
    type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: color("soft"), width: 1, dash: "dot" },
  }));
}

/** Fills a select with [value, text] pairs and keeps what was chosen, if it is still there. */
function fill(select, choices, chosen) {
  const before = chosen ?? select.value;
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  if (choices.some(([value]) => String(value) === String(before))) select.value = before;
}

// --- 1. One update

const update = data.update;
const advantages = unpack(update.advantages);
const SETS = ["in", "kill", "pass"];
const FATES = ["in I_in, inside the band", "in I_kill, which the clip switches off", "in I_pass, outside the band, let through"];
const WIDTH = update.half_width;
const clamp = (logRatio) => Math.min(Math.max(logRatio, -WIDTH), WIDTH); // what lies beyond is drawn at the edge
const logRatios = Object.fromEntries(
  Object.entries(update.methods).map(([method, epochs]) => [method, epochs.map((epoch) => unpack(epoch.log_ratio))]),
);
let timer = null;

/** The way of one sample through the epochs, and a ring around where it is. */
function path(method, epoch, sample) {
  const places = logRatios[method].slice(0, epoch).map((logRatio) => clamp(logRatio[sample]));
  return {
    type: "scatter",
    mode: "lines+markers",
    x: places,
    y: places.map(() => advantages[sample]),
    hoverinfo: "skip",
    line: { color: color("ink"), width: 1.5 },
    marker: {
      size: places.map((_, place) => (place === epoch - 1 ? 14 : 4)),
      symbol: places.map((_, place) => (place === epoch - 1 ? "circle-open" : "circle")),
      color: color("ink"),
      line: { width: 2, color: color("ink") },
    },
  };
}

/** The number of the sample to follow, from 0; what was typed may be out of range. */
function clampedSample() {
  const typed = Math.round(Number(element("sample").value)) || 1;
  return Math.min(Math.max(typed, 1), advantages.length) - 1;
}

function follow({ points }) {
  if (points[0].customdata === undefined) return;
  element("sample").value = points[0].customdata[1];
  drawUpdate();
}

function drawUpdate() {
  const epoch = Number(element("epoch").value);
  const sample = clampedSample();
  element("sample-advantage").textContent = advantages[sample].toFixed(2);
  element("epoch-text").value = `${epoch} of ${element("epoch").max}`;
  for (const side of ["left", "right"]) {
    const method = element(side).value;
    const { shares, kl, sets } = update.methods[method][epoch - 1];
    const members = bytes(sets);
    const logRatio = logRatios[method][epoch - 1];
    element(`title-${side}`).textContent = method;
    const samples = {
      type: "scatter",
      mode: "markers",
      x: logRatio.map(clamp),
      y: advantages,
      customdata: Array.from(logRatio, (value, sample) => [Math.exp(value), sample + 1]),
      hovertemplate: "sample %{customdata[1]}<br>w = %{customdata[0]:.3f}<br>Â = %{y:.2f}<extra></extra>",
      marker: {
        size: 5,
        opacity: 0.75,
        color: members,
        cmin: 0,
        cmax: 2,
        colorscale: SETS.map((name, place) => [place / 2, color(name)]),
      },
    };
    const ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10].filter((ratio) => Math.abs(Math.log(ratio)) <= WIDTH);
    draw(`cloud-${side}`, [samples, path(method, epoch, sample)], {
      xaxis: {
        title: { text: "w" },
        range: [-1.04 * WIDTH, 1.04 * WIDTH],
        tickvals: ticks.map(Math.log),
        ticktext: ticks.map(String),
        tickangle: 0,
        zeroline: false,
      },
      yaxis: { title: { text: "Â" } },
      shapes: verticals([Math.log(1 - update.clip_coef), Math.log(1 + update.clip_coef)]),
    });
    const text = SETS.map((name, place) => `I_${name} ${percent(shares[place])}`).join(", ");
    const beyond = logRatio.filter((value) => Math.abs(value) > WIDTH).length / logRatio.length;
    const far = beyond > 0 ? `; ${percent(beyond)} lie beyond this picture, drawn at its edges` : "";
    element(`shares-${side}`).textContent = `${text}; mean KL ${kl.toPrecision(2)}${far}.`;
    element(`sample-${side}`).textContent =
      `${method}: w = ${Math.exp(logRatio[sample]).toFixed(2)}, ${FATES[members[sample]]}`;
    element(`bar-${side}`).replaceChildren(
      ...SETS.map((name, place) => {
        const part = document.createElement("span");
        part.className = name;
        part.style.flex = shares[place];
        return part;
      }),
    );
  }
}

function stop() {
  clearInterval(timer);
  timer = null;
  element("play").textContent = "Play";
}

function step() {
  const slider = element("epoch");
  slider.value = Number(slider.value) + 1;
  drawUpdate();
  if (slider.value === slider.max) stop();
}

function play() {
  if (timer !== null) return stop();
  const slider = element("epoch");
  if (slider.value === slider.max) slider.value = slider.min;
  drawUpdate();
  element("play").textContent = "Stop";
  timer = setInterval(step, calm ? 1500 : 800);
}

function startUpdate() {
  const methods = Object.keys(update.methods).map((name) => [name, name]);
  fill(element("left"), methods, "clip");
  fill(element("right"), methods, "none");
  element("epoch").max = update.methods.clip.length;
  element("update-source").textContent =
    `${update.env_id}, seed ${update.seed}, iteration ${update.iteration}, ${numberText(advantages.length)} samples`;
  element("sample").max = advantages.length;
  element("sample").value = update.follow + 1;
  element("sample").addEventListener("input", drawUpdate);
  element("left").addEventListener("change", drawUpdate);
  element("right").addEventListener("change", drawUpdate);
  element("epoch").addEventListener("input", () => (stop(), drawUpdate()));
  element("play").addEventListener("click", play);
}

// --- 2. The coefficient

const coefficients = data.coefficients;

/** An array with a row for each place of a grid, of the numbers of all rows in one. */
function rows(numbers, width) {
  const count = numbers.length / width;
  return Array.from({ length: count }, (_, row) => numbers.subarray(row * width, (row + 1) * width));
}

function betaColors() {
  const colors = data.colors.map((value, place) => [place / (data.colors.length - 1), value]);
  if (!dark.matches) return colors;
  return [[0, "#f9aed8"], [0.25, "#b0307f"], [0.5, color("ground")], [0.75, "#4d8a22"], [1, "#bfe68f"]];
}

function drawCoefficient() {
  const method = coefficients.methods[element("method").value];
  const place = Number(element("epsilon").value);
  const epsilon = coefficients.epsilons[place];
  element("epsilon-text").value = epsilon;
  const moves = new Set(method.planes).size > 1;
  element("epsilon-note").textContent = moves ? "" : "This method has no ε, or edges of its own: the slider moves the dotted band alone.";
  element("method-text").textContent = method.text;

  const band = verticals([1 - epsilon, 1 + epsilon]);
  const ratios = coefficients.plane_ratios;
  const plane = {
    type: "heatmap",
    x: ratios,
    y: coefficients.plane_advantages,
    z: rows(unpack(coefficients.arrays[method.planes[place]]), ratios.length),
    zmin: -coefficients.largest,
    zmax: coefficients.largest,
    colorscale: betaColors(),
    colorbar: { thickness: 12, title: { text: "β<sub>t</sub>" }, outlinewidth: 0 },
    hovertemplate: "w = %{x:.2f}<br>Â = %{y:.2f}<br>β<sub>t</sub> = %{z:.2f}<extra></extra>",
  };
  draw("plane", [plane], {
    xaxis: { title: { text: "w" }, range: [0, 3.4] },
    yaxis: { title: { text: "Â" }, range: [-2, 2] },
    shapes: band,
  });

  const [positive, negative] = rows(unpack(coefficients.arrays[method.lines[place]]), coefficients.line_ratios.length);
  const line = (name, y, look) => ({
    type: "scatter",
    mode: "lines",
    name,
    x: coefficients.line_ratios,
    y,
    line: look,
    hovertemplate: `w = %{x:.2f}<br>g / Â = %{y:.2f}<extra>${name}</extra>`,
  });
  const free = line("no trust region", coefficients.line_ratios, { color: color("soft"), width: 1 });
  const up = line("Â > 0 (here 1)", positive, { color: color("ink"), width: 3 });
  const down = line("Â < 0 (here −1)", negative, { color: color("worse"), width: 3, dash: "dash" });
  draw("factor", [free, up, down], {
    xaxis: { title: { text: "w" }, range: [0, 3.4] },
    yaxis: { title: { text: "g / Â" }, range: [-1.5, 3.4] },
    margin: { l: 58, r: 12, t: 48, b: 42 },
    showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" },
    shapes: [
      ...band,
      { type: "rect", xref: "paper", x0: 0, x1: 1, y0: -1.5, y1: 0, fillcolor: color("line"), opacity: 0.35, line: { width: 0 } },
    ],
  });
}

function startCoefficient() {
  fill(element("method"), Object.keys(coefficients.methods).map((name) => [name, name]), "clip");
  element("epsilon").max = coefficients.epsilons.length - 1;
  element("epsilon").value = coefficients.epsilons.indexOf(0.2);
  element("failures").textContent = coefficients.failures.map((line) => `Not shown: ${line}`).join("; ");
  element("method").addEventListener("change", drawCoefficient);
  element("epsilon").addEventListener("input", drawCoefficient);
}

// --- 3. Runs

const folderText = (folder) => (folder === "" ? "defaults" : folder);
const linesOf = (task, folder) => data.lines.filter((line) => line.task === task && line.folder === folder);

function unique(values) {
  return [...new Set(values)];
}

/** Fills a select with the folders of a task, the one with most lines first; without a choice its label is hidden. */
function fillFolders(select, label, task) {
  const lines = data.lines.filter((line) => line.task === task);
  const size = (folder) => lines.filter((line) => line.folder === folder).length;
  const folders = unique(lines.map((line) => line.folder)).sort((a, b) => size(b) - size(a));
  fill(select, folders.map((folder) => [folder, folderText(folder)]));
  label.hidden = folders.length < 2;
}

function fillTasks(select) {
  const chosen = ["Hopper-v4", ...data.tasks].find((task) => data.tasks.includes(task));
  fill(select, data.tasks.map((task) => [task, task]), chosen);
}

/** How many lines of a method there are, by name: "clip = klip = phi (5), clip (15)". */
function countText(lines, method) {
  const own = lines.filter((line) => line.method === method);
  if (own.length === 0) return `${method} (no run)`;
  const diverged = own.filter((line) => line.diverged_at !== null).length;
  const counts = unique(own.map((line) => line.name))
    .map((name) => `${name} (${own.filter((line) => line.name === name).length})`);
  return counts.join(", ") + (diverged ? `, ${diverged} diverged` : "");
}

function checked() {
  return [...document.querySelectorAll("#methods input:checked")].map((box) => box.value);
}

/** Methods whose boxes are not checked, on every task; null before the first choice. */
let unchecked = null;

/** Of many methods all but the main ones are unchecked at first. */
function startUnchecked(lines) {
  const methods = unique(lines.map((line) => line.method));
  return new Set(methods.length > 6 ? methods.filter((method) => !data.main.includes(method)) : []);
}

/** Keeps what boxes that can be checked say: a method without a run on this task keeps its choice. */
function keepUnchecked() {
  for (const box of document.querySelectorAll("#methods input:not(:disabled)")) {
    if (box.checked) unchecked.delete(box.value);
    else unchecked.add(box.value);
  }
}

function fillMethods(lines) {
  unchecked ??= startUnchecked(lines);
  const forms = lines.filter((line) => line.runs.length > 1).map((line) => line.name.split(" = ")).flat();
  // klip and phi have no line of their own where all of theirs are clip's.
  const methods = data.methods.filter((method) => lines.some((line) => line.method === method) || !forms.includes(method));
  const labels = methods.map((method) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    const mark = document.createElement("b");
    box.type = "checkbox";
    box.value = method;
    box.disabled = !lines.some((line) => line.method === method);
    box.checked = !box.disabled && !unchecked.has(method);
    mark.textContent = "━";
    mark.style.color = methodColor(method);
    label.append(box, mark, countText(lines, method));
    return label;
  });
  element("methods").replaceChildren(element("methods").querySelector("legend"), ...labels);
}

/** What of a folder's lines was asked for. */
function shown() {
  const methods = checked();
  const seed = element("seed").value;
  return linesOf(element("task").value, element("folder").value)
    .filter((line) => methods.includes(line.method) && (seed === "all" || String(line.seed) === seed));
}

function lineName(line) {
  return `${line.name}, seed ${line.seed}`;
}

function curve(source, method, quantity, options) {
  return {
    type: "scatter",
    mode: "lines",
    ...(source.x ? { x: source.x } : { x0: source.x0, dx: source.dx }),
    y: unpack(source[quantity]),
    ...options,
    line: { color: methodColor(method), ...options.line },
  };
}

function drawRuns() {
  const lines = shown();
  const quantity = element("quantity").value;
  const alone = element("seed").value !== "all";
  const chosen = Number(element("run-choice").value);
  const traces = [];
  const onTop = [];
  for (const line of lines) {
    const number = data.lines.indexOf(line);
    const strong = number === chosen && element("run-choice").value !== "";
    (strong ? onTop : traces).push(curve(line, line.method, quantity, {
      meta: number,
      opacity: strong || alone ? 1 : 0.45,
      line: { width: strong ? 4 : alone ? 2 : 1, dash: alone ? data.looks[line.method].dash : "solid" },
      hovertemplate: `${lineName(line)}<br>step %{x:,}: %{y:.4~g}<extra></extra>`,
    }));
  }
  const methods = checked();
  const means = data.means.filter((mean) =>
    mean.task === element("task").value && mean.folder === element("folder").value && methods.includes(mean.method));
  for (const mean of alone ? [] : means) {
    traces.push(curve(mean, mean.method, quantity, {
      line: { width: 3.5, dash: data.looks[mean.method].dash },
      hovertemplate: `${mean.method}: mean of ${mean.seeds} seeds<br>step %{x:,}: %{y:.4~g}<extra></extra>`,
    }));
  }
  const crosses = lines.filter((line) => line.diverged_at !== null);
  traces.push({
    type: "scatter",
    mode: "markers",
    x: crosses.map((line) => line.diverged_at),
    y: crosses.map(() => 0.03),
    yaxis: "y2",
    text: crosses.map((line) => `${lineName(line)}: diverged at step ${numberText(line.diverged_at)}`),
    hovertemplate: "%{text}<extra></extra>",
    marker: { symbol: "x", size: 10, color: crosses.map((line) => methodColor(line.method)) },
  });
  traces.push(...paperCurves(lines, methods, quantity), ...onTop);
  const none = lines.length ? [] : [{
    text: "No run is chosen", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 18 },
  }];
  draw("curves", traces, {
    xaxis: { title: { text: "environment steps" }, rangemode: "tozero" },
    yaxis: { title: { text: quantity === "episodic_return" ? "episodic return" : "share of samples" } },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false },
    annotations: none,
  });
}

/** What the paper has of a task. Runs in a folder below the sweep's have other arguments: it says nothing of them. */
function published(task, folder) {
  return folder === "" ? (data.paper[task] ?? {}) : {};
}

/** The paper's mean curves of the methods shown, where our runs are as long as the paper's. */
function paperCurves(lines, methods, quantity) {
  if (quantity !== "episodic_return") return [];
  return Object.entries(published(element("task").value, element("folder").value))
    .filter(([method, entry]) => entry.episodic_return && methods.includes(method)
      && lines.some((line) => line.method === method && line.steps === entry.steps))
    .map(([method, entry]) => curve(entry, method, quantity, {
      line: { width: 2, dash: "dot" },
      hovertemplate: `the paper's ${method}, mean of 5 seeds<br>step %{x:,}: %{y:.4~g}<extra></extra>`,
    }));
}

/** Seeds as text, such as "0–4, 7". */
function ranges(seeds) {
  const parts = [];
  for (const seed of [...seeds].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && last[1] === seed - 1) last[1] = seed;
    else parts.push([seed, seed]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

/** What diverged, and which seeds that some method has another lacks. */
function curvesNote(lines) {
  const notes = [];
  const diverged = lines.filter((line) => line.diverged_at !== null);
  if (diverged.length) {
    notes.push(`Diverged (a cross at the foot): ${diverged.map((line) => `${lineName(line)} at step ${numberText(line.diverged_at)}`).join("; ")}.`);
  }
  const seeds = unique(lines.map((line) => line.seed));
  const missing = new Map();
  for (const method of data.methods) {
    const own = lines.filter((line) => line.name.split(" = ").includes(method)).map((line) => line.seed);
    const lacking = ranges(seeds.filter((seed) => !own.includes(seed)));
    if (own.length && lacking) missing.set(lacking, [...(missing.get(lacking) ?? []), method]);
  }
  for (const [lacking, methods] of missing) notes.push(`No run of seeds ${lacking}: ${methods.join(", ")}.`);
  return notes;
}

function describe(line) {
  const outcome = line.diverged_at !== null ? `diverged at step ${numberText(line.diverged_at)}`
    : line.final_return === null ? "no final return: no episode ended" : `final return ${numberText(line.final_return, 1)}`;
  const text = [`${line.task}, ${lineName(line)}: ${outcome}, ${numberText(line.steps)} steps`];
  text.push(`params_sha256 ${line.params_sha256 || "unknown"}`);
  line.runs.forEach((run, place) => text.push(`${run}\n    ${line.commands[place] || "its script is not in this clone"}`));
  text.push(line.versions);
  element("run").textContent = text.join("\n");
}

/** After a choice of what to show: the list of runs, the notes, the picture. */
function showRuns() {
  const lines = shown();
  const all = linesOf(element("task").value, element("folder").value);
  const choices = lines.map((line) => [data.lines.indexOf(line), lineName(line)]);
  fill(element("run-choice"), [["", "(point at a curve, or choose)"], ...choices]);
  if (element("run-choice").value === "") {
    element("run").textContent = "Point at a curve, or choose a run above: its return, its hash, and the command that trains it again.";
  }
  const mean = element("seed").value === "all" ? "Thin: every run; thick: the mean over seeds. " : "";
  const paper = paperCurves(lines, checked(), element("quantity").value).length ? "Dotted: the paper's mean. " : "";
  const smooth = "Rolling means over a fiftieth of the run. ";
  element("curves-note").textContent = lines.length ? mean + paper + smooth + curvesNote(all).join(" ") : "No run is chosen.";
  drawRuns();
}

function chooseTask() {
  fillFolders(element("folder"), element("folder-label"), element("task").value);
  chooseFolder();
}

function chooseFolder() {
  const lines = linesOf(element("task").value, element("folder").value);
  const seeds = unique(lines.map((line) => line.seed)).sort((a, b) => a - b);
  fill(element("seed"), [["all", "all"], ...seeds.map((seed) => [seed, seed])]);
  fillMethods(lines);
  showRuns();
}

function chooseRun() {
  const choice = element("run-choice").value;
  if (choice !== "") describe(data.lines[Number(choice)]);
  drawRuns();
}

function check(value) {
  document.querySelectorAll("#methods input:not(:disabled)").forEach((box) => (box.checked = value));
  chooseMethods();
}

function chooseMethods() {
  keepUnchecked();
  showRuns();
}

function startRuns() {
  fillTasks(element("task"));
  fill(element("quantity"), Object.entries(data.quantities));
  element("task").addEventListener("change", chooseTask);
  element("folder").addEventListener("change", chooseFolder);
  element("seed").addEventListener("change", showRuns);
  element("quantity").addEventListener("change", showRuns);
  element("methods").addEventListener("change", chooseMethods);
  element("run-choice").addEventListener("change", chooseRun);
  element("all").addEventListener("click", () => check(true));
  element("no-method").addEventListener("click", () => check(false));
  chooseTask();
  element("curves").on("plotly_hover", ({ points }) => {
    const number = points[0].data.meta;
    if (number !== undefined) describe(data.lines[number]);
  });
  element("curves").on("plotly_click", ({ points }) => {
    const number = points[0].data.meta;
    if (number === undefined) return;
    element("run-choice").value = number;
    chooseRun();
  });
}

// --- 4. Final returns

function drawReturns() {
  const task = element("task-returns").value;
  const folder = element("folder-returns").value;
  const lines = linesOf(task, folder);
  const theirs = published(task, folder);
  const methods = data.methods.filter((method) => lines.some((line) => line.method === method));
  const names = methods.map((method) => {
    const of_method = lines.filter((line) => line.method === method);
    return of_method.map((line) => line.name).sort((a, b) => b.length - a.length)[0];
  });
  const traces = [];
  const annotations = [];
  methods.forEach((method, row) => {
    const own = lines.filter((line) => line.method === method);
    const finished = own.filter((line) => line.final_return !== null);
    const returns = finished.map((line) => line.final_return);
    traces.push({
      type: "scatter",
      mode: "markers",
      x: returns,
      y: returns.map(() => row),
      text: finished.map(lineName),
      hovertemplate: "%{text}: %{x:,.1f}<extra></extra>",
      marker: { color: methodColor(method), size: 9, opacity: 0.75 },
    });
    const means = data.means.filter((mean) =>
      mean.task === task && mean.folder === folder && mean.method === method && mean.returns > 1);
    for (const mean of means) {
      traces.push({
        type: "scatter",
        mode: "markers",
        x: [mean.final_return],
        y: [row],
        hovertemplate: `${names[row]}, mean of ${mean.returns}: %{x:,.1f}<extra></extra>`,
        marker: { symbol: "diamond", color: color("ink"), size: 10 },
      });
    }
    const paper = theirs[method];
    if (paper?.mean !== undefined && own.some((line) => line.steps === paper.steps)) {
      traces.push({
        type: "scatter",
        mode: "markers",
        x: [paper.mean],
        y: [row + 0.3],
        error_x: { type: "data", array: [paper.std], color: color("soft"), thickness: 1.5 },
        hovertemplate: `the paper's ${method}: ${numberText(paper.mean)} ± ${numberText(paper.std)}<extra></extra>`,
        marker: { symbol: "diamond-open", color: color("soft"), size: 9 },
      });
    }
    const diverged = own.filter((line) => line.diverged_at !== null).length;
    if (diverged) {
      annotations.push({
        text: `${diverged} of ${own.length} diverged`, x: 1, xref: "paper", xanchor: "right", y: row - 0.3, showarrow: false,
      });
    }
  });
  const missing = data.methods.filter((method) => !lines.some((line) => line.name.split(" = ").includes(method)));
  const steps = unique(lines.map((line) => line.steps)).map((number) => numberText(number)).join(" and ");
  const notes = [`${steps} steps.`];
  const paper = Object.values(theirs).find((entry) => entry.steps);
  if (paper && !lines.some((line) => line.steps === paper.steps)) {
    notes.push(`The paper's runs have ${numberText(paper.steps)} steps, so its returns are not shown beside these.`);
  }
  if (!paper) {
    notes.push(folder === "" ? "The paper did not train this task." : "The paper did not train with these arguments.");
  }
  if (missing.length) notes.push(`No run: ${missing.join(", ")}.`);
  element("returns-note").textContent = notes.join(" ");
  const longest = Math.max(0, ...names.map((name) => name.length));
  draw("returns", traces, {
    height: 38 * Math.max(2, methods.length) + 60,
    margin: { l: 24 + 7 * longest, r: 12, t: 8, b: 42 },
    xaxis: { title: { text: "final return" } },
    yaxis: { tickvals: methods.map((_, row) => row), ticktext: names, range: [methods.length - 0.4, -0.6], zeroline: false },
    annotations,
  });
}

function startReturns() {
  fillTasks(element("task-returns"));
  const choose = () => {
    fillFolders(element("folder-returns"), element("folder-returns-label"), element("task-returns").value);
    drawReturns();
  };
  element("task-returns").addEventListener("change", choose);
  element("folder-returns").addEventListener("change", drawReturns);
  choose();
}

// --- 5. Settings

function drawSettings() {
  const task = element("task-settings").value;
  const lines = data.settings.filter((line) => line.task === task);
  const named = new Set(); // a method has one name in the legend, however many lines
  const traces = lines.map(({ method, points }) => {
    const isNew = !named.has(method);
    named.add(method);
    return {
      type: "scatter",
      mode: "lines+markers",
      name: method,
      legendgroup: method,
      showlegend: isNew,
      x: points.map((point) => point.kl),
      y: points.map((point) => point.final_return),
      customdata: points.map(({ setting, std, seeds }) => [setting, seeds > 1 ? ` ± ${numberText(std)}` : "", seeds]),
      hovertemplate: "%{customdata[0]}<br>KL %{x:.2~g}<br>return %{y:,.0f}%{customdata[1]}, seeds: %{customdata[2]}<extra></extra>",
      line: { width: 1, color: methodColor(method) },
      marker: { size: 10, symbol: data.looks[method].symbol, color: methodColor(method) },
    };
  });
  element("settings-note").textContent = lines.length ? "" : "No run of this task has a return and a KL.";
  draw("settings", traces, {
    xaxis: { type: "log", title: { text: "median KL of an iteration" }, exponentformat: "power" },
    yaxis: { title: { text: "final return" } },
    showlegend: true,
    legend: { orientation: "h", x: 0, y: -0.15, yanchor: "top" },
  });
}

function startSettings() {
  fillTasks(element("task-settings"));
  element("answer").hidden = data.over_clip === "";
  element("over-clip").textContent = data.over_clip;
  element("over-control").textContent = data.over_control;
  element("task-settings").addEventListener("change", drawSettings);
  drawSettings();
}

// --- Start, the first picture first

/** Calls a function after what was drawn before it has been shown. */
function afterPaint(next) {
  requestAnimationFrame(() => setTimeout(next));
}

startUpdate();
drawUpdate();
for (const side of ["left", "right"]) element(`cloud-${side}`).on("plotly_click", follow);
startCoefficient();
afterPaint(() => {
  drawCoefficient();
  afterPaint(() => {
    startRuns();
    startReturns();
    startSettings();
    document.body.dataset.drawn = "yes";
  });
});
dark.addEventListener("change", () => {
  drawUpdate();
  drawCoefficient();
  fillMethods(linesOf(element("task").value, element("folder").value));
  drawRuns();
  drawReturns();
  drawSettings();
});
