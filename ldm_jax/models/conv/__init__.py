"""Convolutions, and the fast paths behind them."""
