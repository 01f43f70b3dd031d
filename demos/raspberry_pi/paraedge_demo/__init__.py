"""The Raspberry Pi demo: see branches race the clock. Imports paraedge_runtime and the page's server, never torch."""
