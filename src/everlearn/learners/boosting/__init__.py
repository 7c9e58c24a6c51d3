"""Boosted trees that are continued, refitted and decayed: LightGBM and XGBoost."""
