/**
 * The rules of the network above the transport, as pure functions and small state machines.
 *
 * @module
 */

export * from "./paths.ts";
