/**
 * The counters of a gateway as Prometheus text (exposition format 0.0.4).
 *
 * @module
 */

import type { GatewayStats } from "./gateway.ts";
import { LATENCY_BUCKETS, OUTCOMES } from "./metrics.ts";

/** The text of `/metrics`. */
export function prometheusText(stats: GatewayStats): string {
  const { metrics, upstreams } = stats;
  const lines: string[] = [];
  const family = (name: string, type: "counter" | "gauge", help: string, samples: [string, number][]) => {
    lines.push(`# HELP htx_gateway_${name} ${help}`, `# TYPE htx_gateway_${name} ${type}`);
    for (const [labels, value] of samples) lines.push(`htx_gateway_${name}${labels} ${value}`);
  };
  family(
    "requests_total",
    "counter",
    "Requests by what became of them.",
    OUTCOMES.map((outcome) => [`{outcome="${outcome}"}`, metrics.outcomes[outcome]]),
  );
  family(
    "tickets_total",
    "counter",
    "Tickets by result.",
    Object.entries(metrics.tickets).map(([result, count]) => [`{result="${result}"}`, count]),
  );
  family("admissions_total", "counter", "Requests let in by their session cookie.", [[
    "",
    metrics.admissions,
  ]]);
  family("retries_total", "counter", "Requests sent again on another session.", [["", metrics.retries]]);
  family("failovers_total", "counter", "Moves of traffic between upstreams.", [["", metrics.switches]]);
  family("request_bytes_total", "counter", "Bytes of request bodies.", [["", metrics.bytesIn]]);
  family("response_bytes_total", "counter", "Bytes of response bodies.", [["", metrics.bytesOut]]);
  family("requests_active", "gauge", "Requests under way, open WebSockets too.", [["", metrics.active]]);
  lines.push(
    "# HELP htx_gateway_latency_seconds Time until a request's answer began.",
    "# TYPE htx_gateway_latency_seconds histogram",
  );
  let count = 0;
  for (const [i, bound] of LATENCY_BUCKETS.entries()) {
    count += metrics.latency[i]!;
    lines.push(`htx_gateway_latency_seconds_bucket{le="${bound}"} ${count}`);
  }
  count += metrics.latency.at(-1)!;
  lines.push(
    `htx_gateway_latency_seconds_bucket{le="+Inf"} ${count}`,
    `htx_gateway_latency_seconds_sum ${metrics.latencySum}`,
    `htx_gateway_latency_seconds_count ${count}`,
  );
  const each = (
    name: string,
    type: "counter" | "gauge",
    help: string,
    of: (one: typeof upstreams[number]) => number,
  ) =>
    family(
      `upstream_${name}`,
      type,
      help,
      upstreams.map((one) => [`{upstream="${escape(one.name)}"}`, of(one)]),
    );
  each("up", "gauge", "Whether the upstream is known to work.", (one) => one.state === "validated" ? 1 : 0);
  each("active", "gauge", "Whether requests go to the upstream.", (one) => one.active ? 1 : 0);
  each("sessions", "gauge", "Sessions open now.", (one) => one.sessions);
  each("sessions_total", "counter", "Sessions made.", (one) => one.connected);
  each("dial_failures_total", "counter", "Dials and handshakes that failed.", (one) => one.failed);
  each("handshake_failures_total", "counter", "Handshakes that failed.", (one) => one.handshakeFailures);
  each("streams", "gauge", "Streams open now.", (one) => one.streams);
  each("streams_total", "counter", "Streams opened.", (one) => one.streamsOpened);
  each("sent_bytes_total", "counter", "Bytes of frames sent.", (one) => one.bytesSent);
  each("received_bytes_total", "counter", "Bytes of frames received.", (one) => one.bytesReceived);
  each("rekeys_total", "counter", "Key updates in both directions.", (one) => one.rekeys);
  each(
    "rtt_seconds",
    "gauge",
    "Smoothed round-trip time; 0 before it was measured.",
    (one) => (one.rttMs ?? 0) / 1000,
  );
  return `${lines.join("\n")}\n`;
}

function escape(label: string): string {
  return label.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
