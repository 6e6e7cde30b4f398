// Puts a live chart in the place of each static picture, from the book's own copy of Vega.
// If that copy cannot be loaded, or a chart fails, its picture stays.
(() => {
  if (window.studyLiveCharts) return; // the theme may list a page script twice
  window.studyLiveCharts = true;
  const folder = document.currentScript.src;

  async function bringToLife(chart) {
    const spec = JSON.parse(chart.querySelector("script").textContent);
    const live = document.createElement("div");
    const actions = { export: true, source: false, compiled: false, editor: false };
    await vegaEmbed(live, spec, { actions, renderer: "svg" });
    chart.querySelector("img").replaceWith(live);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const charts = document.querySelectorAll(".altair-chart");
    if (!charts.length) return;
    const vega = document.createElement("script");
    vega.src = new URL("vega-bundle.js", folder).href;
    vega.onload = () => charts.forEach((chart) => bringToLife(chart).catch(console.warn));
    document.head.append(vega);
  });
})();
