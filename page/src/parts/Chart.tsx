// A line chart: uPlot in the page's colours, drawn again only when its data or the theme change.
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Figure } from "../api/types";
import { figure } from "../format";
import css from "./Chart.module.css";

export interface Line {
  name: string;
  /** `--c1` to `--c6`. */
  colour: string;
  values: readonly Figure[];
  /** Drawn faintly behind: the unsmoothed line. */
  isFaint?: boolean;
  /** Of whole numbers: level until the next step. */
  isStepped?: boolean;
}

interface Props {
  label: string;
  steps: readonly number[];
  lines: readonly Line[];
  band?: { lows: readonly Figure[]; highs: readonly Figure[]; colour: string };
  /** Charts of one group move their cursors together. */
  group: string;
  onCursor?: (index: number | null) => void;
}

const FONT = '11px ui-sans-serif, system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

export function Chart({ label, steps, lines, band, group, onCursor }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const cursor = useRef(onCursor);
  cursor.current = onCursor;
  const shape = `${group}|${lines.map((line) => `${line.name}${line.colour}${line.isFaint}${line.isStepped}`).join("|")}|${band ? band.colour : ""}`;
  const data = [steps, ...lines.map((line) => line.values), ...(band ? [band.highs, band.lows] : [])] as uPlot.AlignedData;
  const newest = useRef(data);
  newest.current = data;

  useEffect(() => {
    const element = box.current!;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element, lines, band?.colour, group, (index) => cursor.current?.(index)), newest.current, element);
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize(size(element)));
    resized.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    window.addEventListener("theme", make);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", make);
      window.removeEventListener("theme", make);
      plot.current?.destroy();
      plot.current = null;
    };
    // `shape` says all that matters of lines and band.
  }, [shape]);

  useEffect(() => {
    const frame = requestAnimationFrame(() => plot.current?.setData(newest.current));
    return () => cancelAnimationFrame(frame);
  }, [steps, lines, band]);

  return <div ref={box} className={css.chart} role="img" aria-label={label} />;
}

const size = (element: HTMLElement) => ({ width: element.clientWidth || 300, height: element.clientHeight || 160 });

/** With a tenth of air; a line that never moves lies low in a scale of its own size, and at nought on the ground. */
function range(least: Figure, most: Figure): [number, number] {
  if (least === null || most === null) return [0, 1];
  if (least < most) return uPlot.rangeNum(least, most, 0.1, true) as [number, number];
  const air = Math.abs(least) || 1;
  return least < 0 ? [least - air, 0] : [0, least + air];
}

function options(
  element: HTMLElement, lines: readonly Line[], bandColour: string | undefined, group: string, onCursor: (index: number | null) => void,
): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--ink-3"), font: FONT, ticks: { show: false },
    grid: { stroke: colour("--line"), width: 1 }, border: { show: false },
  };
  const first = lines.length + 1;
  return {
    ...size(element),
    legend: { show: false },
    padding: [8, 10, 0, 0],
    cursor: {
      sync: { key: group, setSeries: false }, drag: { x: true, y: false },
      points: { size: 7, width: 2, fill: colour("--surface") }, y: false,
    },
    scales: { x: { time: false }, y: { range: (_, least, most) => range(least, most) } },
    axes: [
      { ...axis, size: 26, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) },
      { ...axis, size: 52, ...(lines.every((line) => line.isStepped) && { incrs: [1, 2, 5, 10, 20, 50, 100, 1000] }), values: (_, ticks) => ticks.map((tick) => figure(tick)) },
    ],
    series: [
      {},
      ...lines.map((line): uPlot.Series => ({
        label: line.name, stroke: line.isFaint ? `${colour(line.colour)}50` : colour(line.colour),
        width: line.isFaint ? 1 : 1.75, spanGaps: false,
        ...(line.isStepped && { paths: uPlot.paths.stepped!({ align: -1 }) }), points: { show: (_u, _i, from, to) => to - from < 2, size: 5 },
      })),
      ...(bandColour ? [{ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } }] : []),
    ],
    bands: bandColour ? [{ series: [first, first + 1], fill: `${colour(bandColour)}24` }] : [],
    hooks: { setCursor: [(chart) => onCursor(chart.cursor.idx ?? null)] },
  };
}
