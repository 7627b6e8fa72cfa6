"""Metrics: of the control plane (``metrics``), of this process (``process_metrics``), of the fleet (``fleet_metrics``).

Two loops measure: the lag of the event loop (``loop_lag``) and the expiry of the serving certificate
(``certificates``). No label grows with users or sessions, every figure is on the dashboard or in an alert
(``deploy/``), and a counter has its labels from the start, because Prometheus sees no increase of one that appears.
"""
