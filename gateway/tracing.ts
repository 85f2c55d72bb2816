/**
 * Spans of OpenTelemetry, through its API alone: with `OTEL_DENO=true` Deno exports them, elsewhere they cost nothing.
 * A gateway's span and its upstream's are of one trace: the context travels in fields of the request.
 *
 * @module
 */

import {
  type Context,
  context,
  metrics,
  type ObservableResult,
  propagation,
  ProxyTracerProvider,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from "@opentelemetry/api";
import type { HttpHandler } from "../transport/mod.ts";

/** The span of one request. */
export interface GatewaySpan {
  /** Writes its context into the fields that go upstream. */
  inject(fields: [string, string][]): void;
  /** Ends it. */
  end(status: number, outcome: string): void;
}

/** Makes spans, where somebody collects them. */
export class Tracing {
  readonly #name: string;
  #tracer: Tracer | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  /** Whether somebody collects spans. */
  get active(): boolean {
    return isTracing();
  }

  /** Begins a span. `path` has no query. */
  start(method: string, path: string, scheme: string): GatewaySpan {
    const tracer = this.#tracer ??= trace.getTracer(this.#name);
    const span = tracer.startSpan(`${method} gateway`, {
      kind: SpanKind.CLIENT,
      attributes: { "http.request.method": method, "url.path": path, "url.scheme": scheme },
    });
    return new OpenSpan(span, trace.setSpan(context.active(), span));
  }
}

/** What is counted for OpenTelemetry. */
export interface Observed {
  /** Requests by outcome. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Tickets by result. */
  readonly tickets: Readonly<Record<string, number>>;
  /** Requests on their way, open WebSockets among them. */
  readonly active: number;
  /** Bytes of bodies. */
  readonly bytesIn: number;
  /** Bytes of bodies. */
  readonly bytesOut: number;
}

/** Has the counters read whenever OpenTelemetry collects; the returned function ends that. */
export function observe(name: string, counters: Observed): () => void {
  if (!isTracing()) return () => {};
  const meter = metrics.getMeter(name);
  const requests = meter.createObservableCounter("htx.gateway.requests", { unit: "{request}" });
  const tickets = meter.createObservableCounter("htx.gateway.tickets", { unit: "{ticket}" });
  const bytes = meter.createObservableCounter("htx.gateway.body.bytes", { unit: "By" });
  const active = meter.createObservableUpDownCounter("htx.gateway.requests.active", { unit: "{request}" });
  const each = (values: Readonly<Record<string, number>>, key: string) => (result: ObservableResult) => {
    for (const [value, count] of Object.entries(values)) {
      if (count > 0) result.observe(count, { [key]: value });
    }
  };
  const ofRequests = each(counters.outcomes, "outcome");
  const ofTickets = each(counters.tickets, "result");
  const ofBytes = (result: ObservableResult) => {
    result.observe(counters.bytesIn, { direction: "in" });
    result.observe(counters.bytesOut, { direction: "out" });
  };
  const ofActive = (result: ObservableResult) => result.observe(counters.active);
  requests.addCallback(ofRequests);
  tickets.addCallback(ofTickets);
  bytes.addCallback(ofBytes);
  active.addCallback(ofActive);
  return () => {
    requests.removeCallback(ofRequests);
    tickets.removeCallback(ofTickets);
    bytes.removeCallback(ofBytes);
    active.removeCallback(ofActive);
  };
}

class OpenSpan implements GatewaySpan {
  readonly #span: Span;
  readonly #context: Context;

  constructor(span: Span, context: Context) {
    this.#span = span;
    this.#context = context;
  }

  inject(fields: [string, string][]): void {
    propagation.inject(this.#context, fields, {
      set: (into, name, value) => into.push([name.toLowerCase(), value]),
    });
  }

  end(status: number, outcome: string): void {
    this.#span.setAttribute("http.response.status_code", status);
    this.#span.setAttribute("htx.outcome", outcome);
    if (status >= 500) this.#span.setStatus({ code: SpanStatusCode.ERROR });
    this.#span.end();
  }
}

/** Whether a tracer provider is registered, as with `OTEL_DENO=true`. */
export function isTracing(): boolean {
  const provider = trace.getTracerProvider();
  // What is there without a provider hands out nothing; a registered one may stand behind it.
  return provider instanceof ProxyTracerProvider ? provider.getDelegateTracer("htx") !== undefined : true;
}

/**
 * An upstream's handler with a span for each request, in the trace that the gateway began.
 *
 * @example
 * ```ts
 * import { withTracing } from "@betanet/htx/gateway";
 * import { serve } from "@betanet/htx/transport";
 *
 * await using server = serve(withTracing(() => new Response("hello")));
 * ```
 */
export function withTracing(handler: HttpHandler): HttpHandler {
  let tracer: Tracer | undefined;
  return (request, info) => {
    if (!isTracing()) return handler(request, info);
    tracer ??= trace.getTracer("@betanet/htx/upstream");
    const parent = propagation.extract(context.active(), request.headers, {
      get: (headers, name) => headers.get(name) ?? undefined,
      keys: (headers) => [...headers.keys()],
    });
    const { pathname } = new URL(request.url);
    const span = tracer.startSpan(`${request.method} upstream`, {
      kind: SpanKind.SERVER,
      attributes: { "http.request.method": request.method, "url.path": pathname },
    }, parent);
    return context.with(trace.setSpan(parent, span), async () => {
      try {
        const response = await handler(request, info);
        span.setAttribute("http.response.status_code", response.status);
        if (response.status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
        return response;
      } catch (error) {
        span.setStatus({ code: SpanStatusCode.ERROR });
        throw error;
      } finally {
        span.end();
      }
    });
  };
}
