"""Web Vitals: takes what browsers measured (a beacon) and shows it to Prometheus. Runs by itself; knows no other room."""
