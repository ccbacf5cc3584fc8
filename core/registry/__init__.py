"""An outside schema registry is told our schemas under our ids, so that its tools decode our topics."""
