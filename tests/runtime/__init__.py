"""The runtime without processes: the real pipeline on a real ledger, an inbox in memory and a clock moved by hand."""
