"use strict";
// Tables are sorted by a click on a title: numbers by their value, blanks last, text by the alphabet; a second click turns the order.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!table.tHead || body.rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x !== undefined && y !== undefined) return down ? y - x : x - y;
        if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1;
        const order = a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
