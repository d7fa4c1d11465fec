// What a page sends to the collector of docs/web-vitals.md: once, when it is hidden or left.
// npm install web-vitals; the version is the one of this very bundle, put in when it is built.
import { onCLS, onINP, onLCP } from "web-vitals";

const COLLECTOR = "/vitals"; // or https://vitals.example/vitals
const APP = "checkout"; // the stable Service's name
const VERSION = "1.5"; // the pod template's label app.kubernetes.io/version

const seen = new Map();

function keep({ name, value }) {
  seen.set(name, value); // the latest value of each is the final one
}

function send() {
  if (document.visibilityState !== "hidden" || seen.size === 0) return;
  const vitals = [...seen].map(([name, value]) => ({ name, value }));
  seen.clear();
  navigator.sendBeacon(COLLECTOR, JSON.stringify({ app: APP, version: VERSION, vitals }));
}

onLCP(keep);
onINP(keep);
onCLS(keep);
addEventListener("visibilitychange", send);
addEventListener("pagehide", send); // Safari does not always say that it hides
