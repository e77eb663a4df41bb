"use strict";
// Shows the pairs and records what a person decides. Text from data is only ever textContent.

const data = JSON.parse(document.getElementById("data").textContent);
const column = Object.fromEntries(data.columns.map((name, i) => [name, i]));
const value = (pair, name) => data.rows[pair][column[name]];
const element = (id) => document.getElementById(id);
const stored = "semisup review " + data.digest;

const decisions = new Map(); // of pairs, by position: remove or keep
let shown = []; // the pairs that fit the filter, closest first
let here = 0; // the place of the current pair among them
const done = []; // what was decided, in order: at which pair, and what of each pair was decided before

function make(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function picture(index) {
  if (!data.pictures[index]) return make("span", data.problems[index], "picture");
  const image = make("img", undefined, "picture");
  image.alt = "";
  image.onload = () => image.classList.toggle("small", image.naturalWidth <= 64);
  image.dataset.index = index;
  return image;
}

// An image gets its source when it comes near the window, and gives it back when it is far.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const image of entry.target.querySelectorAll("img")) {
      if (entry.isIntersecting) image.src = data.pictures[image.dataset.index];
      else image.removeAttribute("src");
    }
  }
}, { rootMargin: "800px" });

function makeCard(pair) {
  const card = make("article");
  const pictures = make("div", undefined, "pair");
  pictures.append(...data.shows[pair].map(picture));
  const words = make("div", undefined, "words");
  words.append(
    make("i"), make("b", value(pair, "distance").toFixed(4)),
    make("div", value(pair, "key")), make("div", value(pair, "class"), "quiet"),
    make("div", value(pair, "evaluation_dataset") + " · " + value(pair, "evaluation_key")),
    make("div", value(pair, "evaluation_class"), "quiet"),
  );
  card.append(pictures, words);
  card.onclick = () => { here = shown.indexOf(pair); mark(); };
  near.observe(card);
  return card;
}

const cards = data.rows.map((_, pair) => makeCard(pair));

function decide(pair, decision) {
  if (decision) decisions.set(pair, decision); else decisions.delete(pair);
  cards[pair].classList.toggle("remove", decision === "remove");
  cards[pair].classList.toggle("keep", decision === "keep");
  cards[pair].querySelector("i").textContent = decision;
}

function decideAll(pairs, decision) {
  done.push([shown[here], pairs.map((pair) => [pair, decisions.get(pair) || ""])]);
  for (const pair of pairs) decide(pair, decision);
  here += 1;
}

function undo() {
  if (!done.length) return;
  const [pair, before] = done.pop();
  for (const each of before) decide(...each);
  if (shown.includes(pair)) here = shown.indexOf(pair);
}

function mark() {
  for (const card of document.querySelectorAll(".here")) card.classList.remove("here");
  here = Math.max(0, Math.min(here, shown.length - 1));
  if (!shown.length) return;
  cards[shown[here]].classList.add("here");
  cards[shown[here]].scrollIntoView({ block: "nearest" });
}

function filter() {
  const from = parseFloat(element("from").value), to = parseFloat(element("to").value);
  const dataset = element("dataset").value, decision = element("decision").value;
  const current = shown[here];
  shown = [];
  cards.forEach((card, pair) => {
    const distance = value(pair, "distance");
    const fits = !(distance < from) && !(distance > to)
      && (!dataset || value(pair, "evaluation_dataset") === dataset)
      && (!decision || (decisions.get(pair) || "undecided") === decision);
    card.hidden = !fits;
    if (fits) shown.push(pair);
  });
  here = Math.max(0, shown.indexOf(current));
  element("nothing").hidden = shown.length > 0;
  mark();
}

function report() {
  const removed = [...decisions.values()].filter((decision) => decision === "remove").length;
  element("bar").value = decisions.size;
  element("progress").textContent = `${decisions.size} of ${data.rows.length} pairs decided: `
    + `${removed} remove, ${decisions.size - removed} keep`;
  try {
    localStorage.setItem(stored, JSON.stringify([...decisions]));
  } catch {
    element("note").textContent = "This browser does not keep decisions: download before you leave.";
  }
}

function restore() {
  try {
    for (const [pair, decision] of JSON.parse(localStorage.getItem(stored) || "[]")) {
      if (cards[pair] && (decision === "remove" || decision === "keep")) decide(pair, decision);
    }
  } catch {
    // nothing was kept
  }
}

function quote(field) {
  const text = String(field);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const lines = [[...data.columns, "decision"]];
  data.rows.forEach((row, pair) => {
    if (decisions.has(pair)) lines.push([...row, decisions.get(pair)]);
  });
  return lines.map((line) => line.map(quote).join(",") + "\n").join("");
}

function download() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "reviewed.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function act(key) {
  const pair = shown[here];
  if (key === "d") download();
  else if (key === "u") undo();
  else if (pair === undefined) return false;
  else if (key === "ArrowDown" || key === "ArrowRight") here += 1;
  else if (key === "ArrowUp" || key === "ArrowLeft") here -= 1;
  else if (key === "r" || key === "k") decideAll([pair], key === "r" ? "remove" : "keep");
  else if (key === "Shift+r") {
    decideAll(shown.slice(0, here + 1).filter((each) => !decisions.has(each)), "remove");
  } else return false;
  mark();
  report();
  return true;
}

document.onkeydown = (event) => {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (typing && event.key === "Enter") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = event.key.startsWith("Arrow");
  if (event.repeat && !arrow) return;
  // Caps Lock changes the case of a letter, Shift alone what it does.
  const key = arrow ? event.key : (event.shiftKey ? "Shift+" : "") + event.key.toLowerCase();
  if (act(key)) event.preventDefault();
};
for (const id of ["dataset", "from", "to", "decision"]) element(id).oninput = filter;
for (const id of ["dataset", "decision"]) element(id).onchange = () => element(id).blur();
element("download").onclick = (event) => { download(); event.target.blur(); };
for (const dataset of [...new Set(data.rows.map((_, pair) => value(pair, "evaluation_dataset")))].sort()) {
  const option = make("option", dataset);
  option.value = dataset;
  element("dataset").append(option);
}
element("bar").max = Math.max(data.rows.length, 1);
element("pairs").append(...cards);
restore();
filter();
report();
