for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const lines = JSON.parse(svg.dataset.chart), figure = svg.parentNode;
  if (!lines.some(l => l.points.length)) continue;
  const tip = figure.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
  const cross = svg.appendChild(document.createElementNS(svg.namespaceURI, "line"));
  cross.setAttribute("class", "cross");
  cross.setAttribute("y1", 24);
  cross.setAttribute("y2", 244);
  cross.style.display = "none";
  svg.addEventListener("mousemove", event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) * 760 / box.width;
    const near = lines.filter(l => l.points.length).map(l =>
      ({ line: l, point: l.points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a) }));
    const at = near.reduce((a, b) => Math.abs(b.point[0] - x) < Math.abs(a.point[0] - x) ? b : a).point;
    tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: at[2] }));
    for (const { line, point } of near) {
      const row = tip.appendChild(document.createElement("div")), box = row.appendChild(document.createElement("i"));
      box.style.background = `var(--c${line.colour})`;
      row.append(`${line.name} ${point[3]}`);
    }
    cross.setAttribute("x1", at[0]);
    cross.setAttribute("x2", at[0]);
    tip.style.display = cross.style.display = "block";
    const left = event.clientX - figure.getBoundingClientRect().left;
    tip.style.left = `${left + tip.offsetWidth + 24 > figure.clientWidth ? left - tip.offsetWidth - 12 : left + 14}px`;
    tip.style.top = `${event.clientY - figure.getBoundingClientRect().top - 10}px`;
  });
  svg.addEventListener("mouseleave", () => { tip.style.display = cross.style.display = "none"; });
}
