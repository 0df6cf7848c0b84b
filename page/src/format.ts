// Numbers, sizes and times as people read them. Pure.
import type { Figure } from "./api/types";

const DASH = "–";

/** Four significant digits, no exponent for everyday sizes. */
export function figure(value: Figure | undefined, digits = 4): string {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  if (value < 0) return `−${figure(-value, digits)}`;
  const size = value;
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  if (size !== 0 && size < 1e-4) return value.toExponential(1).replace(".0e", "e");
  return String(Number(value.toPrecision(digits)));
}

/** With a fixed number of decimals, so that a column of them is aligned. */
export function fixed(value: Figure | undefined, decimals: number): string {
  return value === null || value === undefined ? DASH : value.toFixed(decimals).replace("-", "−");
}

export function percent(share: Figure | undefined): string {
  return share === null || share === undefined ? DASH : `${Math.round(share * 100)} %`;
}

export function count(value: number): string {
  if (value < 10_000) return value.toLocaleString("en");
  return value < 999_500 ? `${(value / 1e3).toFixed(value < 99_500 ? 1 : 0)}k` : `${(value / 1e6).toFixed(1)}M`;
}

export function bytes(value: number): string {
  if (value <= 0) return DASH;
  if (value < 2 ** 20) return `${Math.round(value / 2 ** 10)} KiB`;
  return value < 2 ** 30 ? `${Math.round(value / 2 ** 20)} MiB` : `${(value / 2 ** 30).toFixed(1)} GiB`;
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, "0")}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}m`;
  return `${Math.floor(whole / 86_400)}d${String(Math.floor((whole % 86_400) / 3600)).padStart(2, "0")}h`;
}

export function ago(time_s: number, now_s: number): string {
  const gone = now_s - time_s;
  if (gone < 3) return "just now";
  if (gone < 60) return `${Math.floor(gone)} s ago`;
  if (gone < 3600) return `${Math.floor(gone / 60)} min ago`;
  return gone < 86_400 ? `${Math.floor(gone / 3600)} h ago` : `${Math.floor(gone / 86_400)} d ago`;
}

const two = (value: number) => String(value).padStart(2, "0");

export function clock(time_s: number): string {
  const at = new Date(time_s * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function day(time_s: number): string {
  const at = new Date(time_s * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

export function moment(time_s: number): string {
  return `${day(time_s)} ${clock(time_s)}`;
}
