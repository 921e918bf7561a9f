"use strict";
// Reading a cell by pointer or keyboard, and its learning curves on a click. All else stands without this.
document.documentElement.classList.add("scripted");

for (const study of document.querySelectorAll(".study")) {
  const lattice = study.querySelector(".lattice");
  const reading = study.querySelector(".reading");
  const data = JSON.parse(study.querySelector(".data")?.textContent ?? "{}");
  const cells = new Map([...lattice.querySelectorAll(".cell")].map((cell) => [cell.dataset.cell, cell]));
  const textOf = (cell) => cell.querySelector("title").textContent;
  let current = null; // the cell that Tab leads to

  const read = (cell) => { reading.textContent = textOf(cell); };

  const enter = (cell) => {
    current?.setAttribute("tabindex", "-1");
    current = cell;
    cell.setAttribute("tabindex", "0");
  };

  const drawn = (panel, key) => (data.cells?.[key]?.[panel] ?? []).map((heights) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", heights.map((y, k) => `${data.x[k]},${y}`).join(" "));
    return line;
  });

  const choose = (cell) => {
    lattice.querySelector(".chosen")?.classList.remove("chosen");
    cell.classList.add("chosen");
    enter(cell);
    read(cell);
    const key = study.querySelector(".key .chosen");
    if (!key) return;
    key.hidden = false;
    const known = cell.dataset.cell in (data.cells ?? {});
    key.querySelector("span").textContent =
      `chosen cell: ${textOf(cell).split("\n")[0]}${known ? "" : " (no curves)"}`;
    study.querySelectorAll(".panels .selected").forEach((group, panel) =>
      group.replaceChildren(...drawn(panel, cell.dataset.cell)));
  };

  const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const at = (event) => event.target.closest(".cell");

  lattice.setAttribute("role", "group");
  for (const cell of cells.values()) {
    cell.setAttribute("role", "button");
    cell.setAttribute("tabindex", "-1");
  }
  const first = cells.values().next().value;
  if (first) enter(first);

  lattice.addEventListener("pointerover", (event) => { if (at(event)) read(at(event)); });
  lattice.addEventListener("focusin", (event) => { if (at(event)) { enter(at(event)); read(at(event)); } });
  lattice.addEventListener("click", (event) => { if (at(event)) choose(at(event)); });
  lattice.addEventListener("keydown", (event) => {
    const cell = at(event);
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(cell);
    } else if (event.key in step) {
      event.preventDefault();
      const [i, j] = cell.dataset.cell.split("-").map(Number);
      cells.get(`${i + step[event.key][0]}-${j + step[event.key][1]}`)?.focus();
    }
  });
}
