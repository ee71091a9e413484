"""One module per format in which a run is shown or exported."""
