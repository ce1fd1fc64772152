"use strict";
document.documentElement.classList.add("js");

// boxes show and hide a run in every chart
function show(run, drawn) {
  for (const part of document.querySelectorAll(`[data-run="${run}"]`)) {
    if (part instanceof HTMLInputElement) part.checked = drawn;
    else part.classList.toggle("off", !drawn);
  }
}
for (const box of document.querySelectorAll("input[data-run]")) {
  show(box.dataset.run, box.checked);
  box.addEventListener("change", () => show(box.dataset.run, box.checked));
}

// a column's button sorts, each body by itself: the best first, then the worst; what has no value stays last
const words = new Intl.Collator("en", { numeric: true });
function compare(a, b, direction) {
  const [x, y] = [a, b].map((cell) => (cell.tagName === "TH" ? cell.textContent : cell.dataset.value));
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  return direction * (a.tagName === "TH" ? words.compare(x, y) : Number(x) - Number(y));
}
function sort(head) {
  const before = head.getAttribute("aria-sort");
  const first = head.querySelector("button").dataset.first ?? "ascending";
  const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const direction = order === "ascending" ? 1 : -1;
  const cell = (row) => row.cells[head.cellIndex];
  for (const body of head.closest("table").tBodies) {
    body.append(...[...body.rows].sort((a, b) => compare(cell(a), cell(b), direction)));
  }
}
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.querySelector("code");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // where a page may not write to the clipboard
    }
  });
}
