// Markup in template literals, and the hooks, from one place.
import htm from "htm";
import { h } from "preact";

export { render } from "preact";
export { useEffect, useRef, useState } from "preact/hooks";
export const html = htm.bind(h);
