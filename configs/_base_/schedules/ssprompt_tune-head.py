# Head tuning in 200 steps: weights bear smaller steps than prompts.
_base_ = './ssprompt_few-steps.py'
optim_wrapper = dict(optimizer=dict(lr=1e-3))
