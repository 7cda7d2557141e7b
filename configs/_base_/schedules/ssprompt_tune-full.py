# Full tuning in 200 steps: a whole pre-trained model bears small steps alone.
_base_ = './ssprompt_few-steps.py'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
