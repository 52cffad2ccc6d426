"use strict";
(function () {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  function open(stack) {
    const box = stack.querySelector(".viewer");
    if (!box) return null;
    const told = JSON.parse(box.querySelector("script").textContent);
    const frames = told.frames;
    const slider = box.querySelector("input");
    const words = box.querySelector(".words");
    const strip = box.querySelector(".strip");
    const play = box.querySelector(".play");
    const plates = {};
    for (const part of ["frame", "prediction", "residual"]) {
      const plate = box.querySelector("." + part + " .plate");
      plate.style.aspectRatio = told.size[0] + " / " + told.size[1];
      plates[part] = { img: plate.querySelector("img"), none: plate.querySelector(".none") };
      plates[part].img.classList.toggle("small", told.size[0] < 260);
    }
    let at = 0, timer = null;

    function show(index) {
      at = Math.max(0, Math.min(frames.length - 1, index));
      const frame = frames[at];
      for (const part in plates) {
        const { img, none } = plates[part];
        const picture = frame[part];
        img.hidden = picture === null;
        none.hidden = picture !== null;
        if (picture !== null) img.src = told.images[picture];
      }
      slider.value = at;
      slider.setAttribute("aria-valuetext", "frame " + frame.number);
      words.textContent = "";
      const title = document.createElement("b");
      title.textContent = "Frame " + frame.number;
      const tag = document.createElement("span");
      tag.className = "tag " + frame.kind;
      tag.textContent = frame.kind;
      const detail = document.createElement("span");
      detail.className = "detail";
      detail.textContent = frame.words;
      words.append(title, tag, detail);
      for (const cursor of stack.querySelectorAll("svg[data-frames]")) {
        const starts = cursor.dataset.frames.split(" ").map(Number);
        let place = starts.findIndex((start) => start > frame.number);
        place = (place < 0 ? starts.length : place) - 1;
        const x = Number(cursor.dataset.left) + (place + 0.5) * Number(cursor.dataset.step);
        const line = cursor.querySelector(".cursor");
        line.setAttribute("x1", x);
        line.setAttribute("x2", x);
      }
      if (strip) for (const button of strip.children) {
        button.setAttribute("aria-current", String(Number(button.dataset.frame) === frame.number));
      }
    }

    const nearest = (number) => {
      let best = 0;
      frames.forEach((frame, i) => {
        if (Math.abs(frame.number - number) < Math.abs(frames[best].number - number)) best = i;
      });
      return best;
    };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
    slider.max = frames.length - 1;
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    box.querySelector(".back").addEventListener("click", () => { stop(); show(at - 1); });
    box.querySelector(".on").addEventListener("click", () => { stop(); show(at + 1); });
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Stop";
      timer = setInterval(() => show((at + 1) % frames.length), 160);
    });
    if (strip) {
      for (const button of strip.children) {
        const frame = frames.find((one) => one.number === Number(button.dataset.frame));
        button.querySelector("img").src = told.images[frame.frame];
        button.addEventListener("click", () => { stop(); show(nearest(frame.number)); });
      }
    }
    for (const chart of stack.querySelectorAll("svg[data-frames]")) {
      chart.addEventListener("click", (event) => {
        const rect = chart.getBoundingClientRect();
        const x = (event.clientX - rect.left) / rect.width * chart.viewBox.baseVal.width;
        const starts = chart.dataset.frames.split(" ").map(Number);
        const place = Math.floor((x - Number(chart.dataset.left)) / Number(chart.dataset.step));
        if (place >= 0 && place < starts.length) { stop(); show(nearest(starts[place])); }
      });
    }
    show(Math.min(1, frames.length - 1));
    return (number) => { stop(); show(nearest(number)); };
  }

  const go = {};
  for (const stack of document.querySelectorAll(".stack")) go[stack.id] = open(stack);
  const follow = () => {
    const found = /^#(stack-\d+)-frame-(\d+)$/.exec(location.hash);
    if (found && go[found[1]]) go[found[1]](Number(found[2]));
  };
  addEventListener("hashchange", follow);
  follow();
})();
