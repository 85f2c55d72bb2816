/**
 * The rules of the network above the transport, as pure functions and small state machines.
 *
 * @module
 */

export * from "./cbor.ts";
export * from "./identity.ts";
export * from "./paths.ts";
export * from "./transition.ts";
export * from "./transports.ts";
export * from "./vrf.ts";
