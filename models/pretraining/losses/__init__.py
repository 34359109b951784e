"""Losses of pre-training: functions of tensors, masks and a reducer, computed in float32."""
